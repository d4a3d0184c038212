"""Building one version: from a Hive table to a manifest in the object store.

encode (mapInArrow) → place on slot partitions → sort → write files (mapInArrow) → manifest, last

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
from dataclasses import dataclass

import pyarrow as pa
import structlog
from pyspark.sql import DataFrame, SparkSession

from pipeline.format.errors import ConflictError, CountMismatchError, DataError, ObjectMissingError, OutcomeUnknownError, RedkvError
from pipeline.format.layout import manifest_key, new_build_id
from pipeline.format.manifest import Manifest, ManifestSample, Totals
from pipeline.format.slots import SLOT_COUNT, even_ranges
from pipeline.spec import DatasetSpec, check_version
from pipeline.store import ObjectStore
from udtf.encode import ENCODED_DDL, ENCODED_SCHEMA, Encoder, constant_expiry_ms, constant_slot
from udtf.partition import COUNTER_KEY, WRITTEN_DDL, Counters, PartitionTask, Written
from udtf.source import read_source, value_columns

PARTITION_BYTES = 128 << 20  # of the source as Spark estimates it: a task of seconds, whose repetition costs little
PARTITIONS_PER_CORE = 2  # at least: so that an uneven one does not leave the others idle
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
    source = read_source(spark, spec, version)
    built_at_ms = int(clock() * 1000)
    build_id = new_build_id()
    partitions = partition_count(spark, spec, source)
    _log.info("building", dataset=spec.dataset, version=version, build_id=build_id, partitions=partitions)
    ranges = tuple(even_ranges(partitions))
    expiry_ms = constant_expiry_ms(spec, built_at_ms)
    attempts = attempts_max(spark)
    task = PartitionTask(store.root, spec.dataset, version, build_id, spec.type, ranges, built_at_ms, expiry_ms, attempts_max=attempts)
    written = write(source, spec, partitions, task)
    manifest = assemble(spec, version, build_id, built_at_ms, written)
    return publish(store, manifest)


def encoded(source: DataFrame, spec: DatasetSpec, partitions: int, built_at_ms: int) -> DataFrame:
    """The rows as (partition, internal key, value), placed on their slot partitions and sorted."""
    encoder = Encoder(spec, value_columns(spec, source.columns), partitions, built_at_ms)

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return encode_all(encoder, batches)

    placed = source.mapInArrow(encode, ENCODED_DDL).repartitionById(partitions, "partition")
    return placed.sortWithinPartitions("ikey", "value") if spec.type == "zset" else placed.sortWithinPartitions("ikey")


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
    yield pa.RecordBatch.from_pydict({"partition": [0], "ikey": [COUNTER_KEY], "value": [note.encode()]}, schema=ENCODED_SCHEMA)


def write(source: DataFrame, spec: DatasetSpec, partitions: int, task: PartitionTask) -> list[Written]:
    """Encode, sort and write all partitions; what the committed tasks returned."""
    rows = encoded(source, spec, partitions, task.built_at_ms).mapInArrow(task.run, WRITTEN_DDL).collect()
    return [Written.model_validate_json(row.written) for row in rows]


def attempts_max(spark: SparkSession) -> int:
    """How often Spark runs a task that fails: `spark.task.maxFailures`, but in local mode once, unless the master says `local[n,times]`."""
    scheduler = spark.sparkContext._jsc.sc().taskScheduler()  # noqa: SLF001 -- the setting alone does not tell what local mode does
    return int(scheduler.maxTaskFailures())


def partition_count(spark: SparkSession, spec: DatasetSpec, source: DataFrame) -> int:
    """How many slot partitions: by the source's size, enough for all cores; one if all keys share a slot."""
    if constant_slot(spec.key_template) is not None:
        return 1
    cores = spark.sparkContext.defaultParallelism
    size = int(str(source._jdf.queryExecution().optimizedPlan().stats().sizeInBytes()))  # noqa: SLF001 -- PySpark shows no estimate of its own
    by_size = size // PARTITION_BYTES if size < UNKNOWN_BYTES else source.rdd.getNumPartitions()
    return max(1, min(SLOT_COUNT, max(by_size, PARTITIONS_PER_CORE * cores)))


def assemble(spec: DatasetSpec, version: str, build_id: str, built_at_ms: int, written: list[Written]) -> Manifest:
    """The manifest of what all tasks wrote.

    Raises:
        RedkvError: a task's failure.
        DataError: nothing was stored.
        CountMismatchError: rows were lost or doubled.
    """
    for one in written:
        if one.failure is not None:
            raise RedkvError.from_json(one.failure)
    files = tuple(sorted((one.file for one in written if one.file), key=lambda file: file.smallest))
    counters = [one.counters for one in written if one.counters]
    totals = Totals(
        source_rows=sum(one.rows for one in counters),
        stored_rows=sum(one.rows for one in written),
        duplicates=0,
        skipped=sum(one.skipped for one in counters),
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
            f"{totals.source_rows} rows were read, but {totals.stored_rows} stored and {totals.skipped} skipped: no manifest is written"
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
            return Built(standing, existed=True)
    _log.info("finished", key=key, **manifest.totals.model_dump())
    return Built(manifest, existed=False)


def _finished(store: ObjectStore, dataset: str, version: str) -> Manifest | None:
    key = manifest_key(dataset, version)
    try:
        return Manifest.from_json(store.get(key).data, key)
    except ObjectMissingError:
        return None
