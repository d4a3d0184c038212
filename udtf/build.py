"""Building one version: from a Hive table to a manifest in the object store.

sample → encode and place (mapInArrow) → shuffle and sort → fold, write and upload files (mapInArrow) → metas of split keys → manifest, last

Rules:
- A finished manifest is never changed: building that version again does nothing.
- Only what Spark hands to the driver counts: what committed tasks returned. Other attempts' files are garbage, no manifest names them.
- Totals must add up before a manifest is written.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own convention

from pipeline.format.errors import ConflictError, CountMismatchError, DataError, ObjectMissingError, OutcomeUnknownError, RedkvError
from pipeline.format.layout import manifest_key, new_build_id
from pipeline.format.manifest import Manifest, ManifestSample, Totals, Whole
from pipeline.format.values import ValueType
from pipeline.spec import DatasetSpec, check_version
from pipeline.store import ObjectStore
from udtf.delta import Delta
from udtf.encode import Encoder, constant_expiry_ms
from udtf.partition import WRITTEN_DDL, Folded, PartitionTask, Written
from udtf.placement import Placement
from udtf.progress import job_group
from udtf.rows import ELEMENT, IKEY, ORDER, PARTITION, VALUE, Counters, RowSchema
from udtf.sample import PLAIN_BYTES, plan_placement
from udtf.source import read_source, row_schema, value_columns
from udtf.split import split_metas

ROWS = "rows"  # how many rows a settled one stands for

TASK_BYTES = 128 << 20  # of the source as Spark estimates it: a task of seconds, whose repetition costs little
TASKS_PER_CORE = 2  # at least: so that an uneven one does not leave the others idle
TASKS_MAX = 20_000  # Spark's driver keeps track of no more with ease
ENCODED_BYTES_MAX = 64 << 20  # of a batch, about: a table of many numbers grows sixfold when these become texts with names
BATCH_BYTES_SETTING = "spark.sql.execution.arrow.maxBytesPerBatch"
UNMEASURED = (1 << 31) - 1  # of that setting: Spark looks at no batch's size
UNKNOWN_BYTES = 1 << 62  # Spark's estimate for a table without statistics
SAMPLES_MAX = 1000  # read back on every node before activation, about 0.1 ms each

_log = structlog.get_logger("udtf")


@dataclass(frozen=True, slots=True)
class Built:
    """A finished version; `existed` says that there was nothing to do."""

    manifest: Manifest
    existed: bool


def build_version(
    spark: SparkSession,
    spec: DatasetSpec,
    version: str,
    store: ObjectStore,
    clock: Callable[[], float] = time.time,
    shard_borders: tuple[int, ...] = (),
    base: str | None = None,
) -> Built:
    """Build one version, unless it is finished. `shard_borders` are slots where shards of the cluster begin: files are cut there, too.
    With a `base`, it is a delta on that version (delta.py).

    Raises:
        SpecError: the spec does not fit the table.
        UsageError, BaseMissingError, BaseChangedError, ChainTooLongError: it can't lie on that base.
        DataError: a row can't become a key under the spec's rules.
        CountMismatchError: rows were lost or doubled; no manifest was written.
        StoreError: the object store refused.
    """
    check_version(version)
    finished = finished_manifest(store, spec.dataset, version)
    if finished is not None:
        _log.info("finished already", dataset=spec.dataset, version=version, build_id=finished.build_id)
        return Built(finished, existed=True)
    delta = Delta.on(store, spec, version, base) if base else None
    rows_of = delta.spec if delta else spec
    plan = plan_build(spark, rows_of, version, store.root, int(clock() * 1000), shard_borders, delta)
    placement = plan.task.placement
    _log.info(
        "building",
        dataset=spec.dataset,
        version=version,
        build_id=plan.task.build_id,
        tasks=placement.tasks,
        split=len(placement.splits),
        base=base,
    )
    with described(spark, spec, version, "encode, sort, write and upload"):
        written = write(plan)
    manifest = assemble(rows_of, version, plan.task.build_id, plan.built_at_ms, written, delta)
    if delta:
        delta.check_base(store, version)
    return publish(store, manifest.model_copy(update={"spec": spec.model_dump(mode="json", exclude_none=True)}))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before the work: the rows, their encoder, what every task does, and the bytes of the widest row of a sample."""

    source: DataFrame
    encoder: Encoder
    task: PartitionTask
    built_at_ms: int
    widest: int | None = None


def plan_build(
    spark: SparkSession,
    spec: DatasetSpec,
    version: str,
    store_url: str,
    built_at_ms: int,
    shard_borders: tuple[int, ...] = (),
    delta: Delta | None = None,
) -> Plan:
    """Check the spec against the table, and spread the table's keys over tasks.

    Raises:
        SpecError: the spec does not fit the table.
        DataError: a row of the sample can't become a key.
    """
    source = read_source(spark, spec, version)
    encoder = Encoder(spec, value_columns(spec, source.columns), row_schema(spec, source), built_at_ms)
    with described(spark, spec, version, "sample the keys"):
        placement, widest = plan_placement(source, spec, encoder, version, task_count(spark, source))
    if delta and delta.base:
        placement = replace(placement, version=delta.base.element_version)
    task = PartitionTask(
        store_url,
        spec.dataset,
        version,
        new_build_id(),
        placement,
        constant_expiry_ms(spec, built_at_ms),
        last=spec.last_by is not None,
        deletes=spec.mode == "upsert" or (delta is not None and delta.base is None),
        delta=delta is not None,
        base=delta.base if delta else None,
        shard_borders=shard_borders,
        attempts_max=attempts_max(spark),
    )
    return Plan(source, encoder, task, built_at_ms, widest)


@contextmanager
def described(spark: SparkSession, spec: DatasetSpec, version: str, what: str) -> Iterator[None]:
    """Within it, jobs belong to the build's group, and Spark's pages call them by this name."""
    context = spark.sparkContext
    context.setJobGroup(job_group(spec.dataset, version), f"{spec.dataset} {version}: {what}")
    try:
        yield
    finally:
        for name in ("spark.jobGroup.id", "spark.job.description"):
            context.setLocalProperty(name, None)  # type: ignore[arg-type]  # Spark clears it so


def anchors(spark: SparkSession, tasks: int, schema: RowSchema) -> DataFrame:
    """A counter row for every task, which counts nothing."""
    note = Counters(rows=0, skipped=0).model_dump_json()
    made = {
        PARTITION: "int(id)",
        IKEY: "X''",
        ELEMENT: "binary(uuid())",
        VALUE: f"binary('{note}')",
        ORDER: f"CAST(NULL AS {schema.order_ddl})",
    }
    return spark.range(tasks).selectExpr(*(f"{made[name]} AS {name}" for name in schema.placed_arrow.names))


def shuffled(source: DataFrame, encoder: Encoder, placement: Placement, *, compared: bool = False) -> DataFrame:
    """The rows for the writers: encoded, each with its task, and sorted. `compared`: every task gets a row."""
    schema = encoder.schema

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return encode_all(encoder, batches)

    def place(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return (placement.place(batch, schema) for batch in encode_all(encoder, batches))

    def place_settled(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return (placement.place(batch, schema) for batch in count_settled(schema, batches))

    if placement.kind is ValueType.ZSET and schema.order_ddl and placement.splits:
        # a split sorted set's ranks do not lie where its members do, so what stands must be known before they part
        top = F.max(F.struct(ORDER, VALUE)).alias("top")
        groups = source.mapInArrow(encode, schema.ddl).groupBy(IKEY, ELEMENT).agg(top, F.count("*").alias(ROWS))
        settled = groups.select(IKEY, ELEMENT, f"top.{VALUE}", f"top.{ORDER}", ROWS)
        placed = settled.mapInArrow(place_settled, schema.placed_ddl)
    else:
        placed = source.mapInArrow(place, schema.placed_ddl)
    if compared:  # every task must see what the base has of it, also one that gets no row
        placed = placed.union(anchors(source.sparkSession, placement.tasks, schema))
    return placed.repartitionById(placement.tasks, PARTITION).sortWithinPartitions(*schema.sort_columns)


def encode_all(encoder: Encoder, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Encode a task's batches, and end with one counter row, or with the failure that ended it."""
    rows = skipped = 0
    try:
        for batch in chain.from_iterable(map(parts, batches)):
            result = encoder.encode(batch)
            rows += result.rows
            skipped += result.skipped
            yield result.batch
        note = Counters(rows=rows, skipped=skipped).model_dump_json()
    except RedkvError as failed:
        note = json.dumps(failed.to_json())
    yield encoder.schema.counter_row(note)


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch as one or several that are not too large when they are encoded."""
    row_bytes = batch.nbytes / max(1, batch.num_rows) + sum(len(name) + PLAIN_BYTES for name in batch.schema.names)
    rows = max(1, int(ENCODED_BYTES_MAX / row_bytes))
    return (batch.slice(at, rows) for at in range(0, batch.num_rows, rows))


def count_settled(schema: RowSchema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Settled rows without the number of rows that each stands for; one more counter row tells how many went."""
    duplicates = 0
    for batch in batches:
        duplicates += (pc.sum(batch.column(ROWS)).as_py() or 0) - batch.num_rows
        yield pa.RecordBatch.from_arrays([batch.column(name) for name in schema.arrow.names], schema=schema.arrow)
    yield schema.counter_row(Counters(rows=0, skipped=0, duplicates=duplicates).model_dump_json())


def write(plan: Plan) -> list[Written]:
    """Encode, sort and write everything; what the committed tasks returned, and the metas of split keys."""
    with unmeasured(plan):
        placed = shuffled(plan.source, plan.encoder, plan.task.placement, compared=plan.task.base is not None)
        rows = placed.mapInArrow(plan.task.run, WRITTEN_DDL).collect()
    written = [Written.model_validate_json(row.written) for row in rows]
    for one in written:
        if one.failure is not None:
            raise RedkvError.from_json(one.failure)
    return [*written, *split_metas(plan.task, (one.folded for one in written if one.folded))]


@contextmanager
def unmeasured(plan: Plan) -> Iterator[None]:
    """Within it, Spark does not measure Arrow batches, which it does after every row and at the price of a tenth of the build, unless
    rows are so wide that a batch of them could pass the session's bound.
    """
    spark = plan.source.sparkSession
    limits = spark._jsparkSession.sessionState().conf()  # noqa: SLF001 -- the settings alone may be text with units
    if plan.widest is None or limits.arrowMaxRecordsPerBatch() * plan.widest > limits.arrowMaxBytesPerBatch():
        yield
        return
    bound = spark.conf.get(BATCH_BYTES_SETTING)
    spark.conf.set(BATCH_BYTES_SETTING, str(UNMEASURED))
    try:
        yield
    finally:
        spark.conf.set(BATCH_BYTES_SETTING, str(bound))


def attempts_max(spark: SparkSession) -> int:
    """How often Spark runs a task that fails: `spark.task.maxFailures`, but in local mode once, unless the master says `local[n,times]`."""
    scheduler = spark.sparkContext._jsc.sc().taskScheduler()  # noqa: SLF001 -- the setting alone does not tell what local mode does
    return int(scheduler.maxTaskFailures())


def task_count(spark: SparkSession, source: DataFrame) -> int:
    """How many tasks write: by the source's size, enough for all cores."""
    cores = spark.sparkContext.defaultParallelism
    size = int(str(source._jdf.queryExecution().optimizedPlan().stats().sizeInBytes()))  # noqa: SLF001 -- PySpark shows no estimate of its own
    by_size = size // TASK_BYTES if size < UNKNOWN_BYTES else source.rdd.getNumPartitions()
    return max(1, min(TASKS_MAX, max(by_size, TASKS_PER_CORE * cores)))


def assemble(
    spec: DatasetSpec, version: str, build_id: str, built_at_ms: int, written: list[Written], delta: Delta | None = None
) -> Manifest:
    """The manifest of what all tasks wrote.

    Raises:
        DataError: nothing was stored.
        CountMismatchError: rows were lost or doubled.
    """
    files = tuple(sorted((one.file for one in written if one.file), key=lambda file: file.smallest))
    counters = [one.counters for one in written if one.counters]
    folded = [one.folded for one in written if one.folded]
    deletes = sum(one.deletes for one in files)
    compared = delta is not None and delta.base is not None
    of_rows = 0 if compared else deletes  # what a comparison deletes are no rows
    totals = Totals(
        source_rows=sum(one.rows for one in counters),
        stored_rows=sum(one.stored for one in folded),
        duplicates=sum(one.duplicates for one in counters) + sum(one.duplicates for one in folded),
        skipped=sum(one.skipped for one in counters) + sum(one.deleted for one in folded) - of_rows,
        keys=sum(one.keys for one in files),
        entries=sum(one.entries for one in files),
        deletes=deletes,
        bytes=sum(one.bytes for one in files),
    )
    if not totals.stored_rows and not of_rows and not spec.allow_empty:
        what = f"NULL or delete_if left nothing of the {totals.source_rows} rows" if totals.source_rows else "the filter matched no row"
        where = spec.source.filter_for(version) or "no filter"
        message = (
            f"dataset {spec.dataset} {version} would be empty: {what} of {spec.source.table} ({where}); mend the filter or the table, "
            f"or set allow_empty: true"
        )
        raise DataError(message, dataset=spec.dataset, version=version)
    if totals.source_rows != totals.stored_rows + totals.duplicates + totals.skipped + of_rows:
        message = (
            f"{totals.source_rows} rows were read, but {totals.stored_rows} stored, {totals.duplicates} settled as duplicates, "
            f"{totals.skipped} skipped and {of_rows} made deletes: no manifest is written"
        )
        raise CountMismatchError(message, **totals.model_dump())
    return Manifest(
        dataset=spec.dataset,
        version=version,
        build_id=build_id,
        built_at_ms=built_at_ms,
        prefix=spec.prefix,
        type=spec.type,
        mode=spec.mode,
        spec=spec.model_dump(mode="json", exclude_none=True),
        totals=totals,
        files=files,
        samples=_samples(written),
        format_version=2 if delta else 1,
        bases=delta.bases if delta else (),
        whole=_whole(folded) if compared else None,
    )


def _whole(folded: list[Folded]) -> Whole:
    held = [one.whole for one in folded if one.whole]
    return Whole(keys=sum(one.keys for one in held), entries=sum(one.entries for one in held))


def _samples(written: list[Written]) -> tuple[ManifestSample, ...]:
    """An even choice of at most SAMPLES_MAX, in an order of their own: neighbours in the table are not neighbours in it."""
    ordered = sorted((sample for one in written for sample in one.samples), key=lambda one: hashlib.sha256(one.key).digest())
    return tuple(ordered[:SAMPLES_MAX])


def publish(store: ObjectStore, manifest: Manifest) -> Built:
    """Write the manifest by conditional create; if another build of the version finished first, that one stands."""
    key = manifest_key(manifest.dataset, manifest.version)
    try:
        store.create(key, manifest.to_json())
    except (ConflictError, OutcomeUnknownError):
        standing = finished_manifest(store, manifest.dataset, manifest.version)
        if standing is None:
            raise
        if standing.build_id != manifest.build_id:
            _log.warning("another build finished first; the files of this one are garbage", key=key, ours=manifest.build_id)
        return Built(standing, existed=standing.build_id != manifest.build_id)
    _log.info("finished", key=key, **manifest.totals.model_dump())
    return Built(manifest, existed=False)


def finished_manifest(store: ObjectStore, dataset: str, version: str) -> Manifest | None:
    """The manifest of a version that was built already."""
    key = manifest_key(dataset, version)
    try:
        return Manifest.from_json(store.get(key).data, key)
    except ObjectMissingError:
        return None
