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
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own convention

from pipeline.format.errors import ConflictError, CountMismatchError, DataError, ObjectMissingError, OutcomeUnknownError, RedkvError
from pipeline.format.layout import manifest_key, new_build_id
from pipeline.format.manifest import Manifest, ManifestSample, Totals
from pipeline.format.values import ValueType
from pipeline.spec import DatasetSpec, check_version
from pipeline.store import ObjectStore
from udtf.encode import Encoder, constant_expiry_ms
from udtf.partition import WRITTEN_DDL, PartitionTask, Written
from udtf.placement import Placement
from udtf.progress import job_group
from udtf.rows import ELEMENT, IKEY, ORDER, PARTITION, VALUE, Counters, RowSchema
from udtf.sample import plan_placement
from udtf.source import read_source, row_schema, value_columns
from udtf.split import split_metas

ROWS = "rows"  # how many rows a settled one stands for

TASK_BYTES = 128 << 20  # of the source as Spark estimates it: a task of seconds, whose repetition costs little
TASKS_PER_CORE = 2  # at least: so that an uneven one does not leave the others idle
TASKS_MAX = 20_000  # Spark's driver keeps track of no more with ease
UNKNOWN_BYTES = 1 << 62  # Spark's estimate for a table without statistics
SAMPLES_MAX = 1000  # read back on every node before activation, about 0.1 ms each

_log = structlog.get_logger("udtf")


@dataclass(frozen=True, slots=True)
class Built:
    """A finished version; `existed` says that there was nothing to do."""

    manifest: Manifest
    existed: bool


def build_version(
    spark: SparkSession, spec: DatasetSpec, version: str, store: ObjectStore, clock: Callable[[], float] = time.time
) -> Built:
    """Build one version, unless it is finished.

    Raises:
        SpecError: the spec does not fit the table.
        DataError: a row can't become a key under the spec's rules.
        CountMismatchError: rows were lost or doubled; no manifest was written.
        StoreError: the object store refused.
    """
    check_version(version)
    finished = _finished(store, spec.dataset, version)
    if finished is not None:
        _log.info("finished already", dataset=spec.dataset, version=version, build_id=finished.build_id)
        return Built(finished, existed=True)
    plan = plan_build(spark, spec, version, store.root, int(clock() * 1000))
    placement = plan.task.placement
    _log.info(
        "building", dataset=spec.dataset, version=version, build_id=plan.task.build_id, tasks=placement.tasks, split=len(placement.splits)
    )
    with described(spark, spec, version, "encode, sort, write and upload"):
        written = write(plan)
    return publish(store, assemble(spec, version, plan.task.build_id, plan.built_at_ms, written))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before the work: the rows, their encoder, and what every task does."""

    source: DataFrame
    encoder: Encoder
    task: PartitionTask
    built_at_ms: int


def plan_build(spark: SparkSession, spec: DatasetSpec, version: str, store_url: str, built_at_ms: int) -> Plan:
    """Check the spec against the table, and spread the table's keys over tasks.

    Raises:
        SpecError: the spec does not fit the table.
        DataError: a row of the sample can't become a key.
    """
    source = read_source(spark, spec, version)
    encoder = Encoder(spec, value_columns(spec, source.columns), row_schema(spec, source), built_at_ms)
    with described(spark, spec, version, "sample the keys"):
        placement = plan_placement(source, spec, encoder, version, task_count(spark, source))
    task = PartitionTask(
        store_url,
        spec.dataset,
        version,
        new_build_id(),
        placement,
        constant_expiry_ms(spec, built_at_ms),
        last=spec.last_by is not None,
        attempts_max=attempts_max(spark),
    )
    return Plan(source, encoder, task, built_at_ms)


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


def shuffled(source: DataFrame, encoder: Encoder, placement: Placement) -> DataFrame:
    """The rows for the writers: encoded, each with its task, and sorted."""
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
    return placed.repartitionById(placement.tasks, PARTITION).sortWithinPartitions(*schema.sort_columns)


def encode_all(encoder: Encoder, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Encode a task's batches, and end with one counter row, or with the failure that ended it."""
    rows = skipped = 0
    try:
        for batch in batches:
            if batch.num_rows:
                result = encoder.encode(batch)
                rows += result.rows
                skipped += result.skipped
                yield result.batch
        note = Counters(rows=rows, skipped=skipped).model_dump_json()
    except RedkvError as failed:
        note = json.dumps(failed.to_json())
    yield encoder.schema.counter_row(note)


def count_settled(schema: RowSchema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Settled rows without the number of rows that each stands for; one more counter row tells how many went."""
    duplicates = 0
    for batch in batches:
        duplicates += (pc.sum(batch.column(ROWS)).as_py() or 0) - batch.num_rows
        yield pa.RecordBatch.from_arrays([batch.column(name) for name in schema.arrow.names], schema=schema.arrow)
    yield schema.counter_row(Counters(rows=0, skipped=0, duplicates=duplicates).model_dump_json())


def write(plan: Plan) -> list[Written]:
    """Encode, sort and write everything; what the committed tasks returned, and the metas of split keys."""
    rows = shuffled(plan.source, plan.encoder, plan.task.placement).mapInArrow(plan.task.run, WRITTEN_DDL).collect()
    written = [Written.model_validate_json(row.written) for row in rows]
    for one in written:
        if one.failure is not None:
            raise RedkvError.from_json(one.failure)
    return [*written, *split_metas(plan.task, (one.folded for one in written if one.folded))]


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


def assemble(spec: DatasetSpec, version: str, build_id: str, built_at_ms: int, written: list[Written]) -> Manifest:
    """The manifest of what all tasks wrote.

    Raises:
        DataError: nothing was stored.
        CountMismatchError: rows were lost or doubled.
    """
    files = tuple(sorted((one.file for one in written if one.file), key=lambda file: file.smallest))
    counters = [one.counters for one in written if one.counters]
    folded = [one.folded for one in written if one.folded]
    totals = Totals(
        source_rows=sum(one.rows for one in counters),
        stored_rows=sum(one.stored for one in folded),
        duplicates=sum(one.duplicates for one in counters) + sum(one.duplicates for one in folded),
        skipped=sum(one.skipped for one in counters) + sum(one.deleted for one in folded),
        keys=sum(one.keys for one in files),
        entries=sum(one.entries for one in files),
        deletes=0,
        bytes=sum(one.bytes for one in files),
    )
    if not totals.stored_rows and not spec.allow_empty:
        what = f"all {totals.source_rows} rows were skipped by on_null" if totals.source_rows else "the filter matched no row"
        where = spec.source.filter_for(version) or "no filter"
        message = (
            f"dataset {spec.dataset} {version} would be empty: {what} of {spec.source.table} ({where}); mend the filter or the table, "
            f"or set allow_empty: true"
        )
        raise DataError(message, dataset=spec.dataset, version=version)
    if totals.source_rows != totals.stored_rows + totals.duplicates + totals.skipped:
        message = (
            f"{totals.source_rows} rows were read, but {totals.stored_rows} stored, {totals.duplicates} settled as duplicates and "
            f"{totals.skipped} skipped: no manifest is written"
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
    )


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
        standing = _finished(store, manifest.dataset, manifest.version)
        if standing is None:
            raise
        if standing.build_id != manifest.build_id:
            _log.warning("another build finished first; the files of this one are garbage", key=key, ours=manifest.build_id)
        return Built(standing, existed=standing.build_id != manifest.build_id)
    _log.info("finished", key=key, **manifest.totals.model_dump())
    return Built(manifest, existed=False)


def _finished(store: ObjectStore, dataset: str, version: str) -> Manifest | None:
    key = manifest_key(dataset, version)
    try:
        return Manifest.from_json(store.get(key).data, key)
    except ObjectMissingError:
        return None
