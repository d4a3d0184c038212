"""The build job's steps as table functions, for those who call it from SQL, as Hive calls its UDTFs.

::

    redkv_encode(TABLE(source))                                                    rows for the writers, each with its task
    redkv_bulk_load(TABLE(encoded) PARTITION BY partition ORDER BY (ikey, ...))    a row per file, and a last one with counts
    redkv_commit(TABLE(written) WITH SINGLE PARTITION)                             the manifest, in one row

Rules:
- The functions of a session belong to one build: `register_functions` checks the spec, draws the sample, and makes them anew for another.
- A finished version is not built again: `register_functions` looks for its manifest first, as `build_version` does.
- What they write is what `udtf.build` writes, by the same code.
- Spark hands a function its rows batch by batch, and wants none held: a partition's rows wait on the task's disk until its last has come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyspark.sql import SparkSession
from pyspark.sql.functions import arrow_udtf
from pyspark.sql.udtf import UserDefinedTableFunction

from pipeline.format.errors import DataError, RedkvError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.spec import DatasetSpec, check_version
from pipeline.store import ObjectStore
from udtf.build import Plan, assemble, encode_all, finished_manifest, plan_build, publish
from udtf.folders import task_folder
from udtf.partition import PartitionTask, Written
from udtf.rows import Counters
from udtf.split import split_metas

SOURCE_VIEW = "redkv_source"  # the version's rows, with the columns that the spec needs
ENCODE, BULK_LOAD, COMMIT = "redkv_encode", "redkv_bulk_load", "redkv_commit"

FILES_DDL = "object_key string, keys bigint, entries bigint, bytes bigint, written string"
COMMITTED_DDL = "manifest_key string, build_id string, keys bigint, entries bigint, bytes bigint, existed boolean"

_WRITTEN = "written"

_log = structlog.get_logger("udtf")


def register_functions(
    spark: SparkSession, spec: DatasetSpec, version: str, store: ObjectStore, clock: Callable[[], float] = time.time
) -> str:
    """Make the three functions and the view of the source for one build; the statement that runs the whole of it. Of a version that is
    finished, one that does nothing and says so; there are no functions then.

    Raises:
        SpecError: the spec does not fit the table.
        DataError: a row of the sample can't become a key, or there is no row.
    """
    check_version(version)
    finished = finished_manifest(store, spec.dataset, version)
    if finished is not None:
        _log.info("finished already", dataset=spec.dataset, version=version, build_id=finished.build_id)
        _unregister(spark)
        return _said(finished)
    plan = plan_build(spark, spec, version, store.root, int(clock() * 1000))
    if plan.source.isEmpty():
        _refuse_empty(spec, plan)
    if spec.type == "zset" and spec.last_by:  # of a split one what stands is settled by one more shuffle, which these have no place for
        plan = replace(plan, task=replace(plan.task, placement=replace(plan.task.placement, splits=())))
    plan.source.createOrReplaceTempView(SOURCE_VIEW)
    spark.udtf.register(ENCODE, _encode(plan))
    spark.udtf.register(BULK_LOAD, _bulk_load(plan.task, plan.encoder.schema.sort_columns))
    spark.udtf.register(COMMIT, _commit(spec, plan))
    order = ", ".join(plan.encoder.schema.sort_columns)
    encoded = f"SELECT * FROM {ENCODE}(TABLE({SOURCE_VIEW}))"  # noqa: S608 -- names of this module
    written = f"SELECT * FROM {BULK_LOAD}(TABLE({encoded}) PARTITION BY partition ORDER BY ({order}))"  # noqa: S608 -- names of this module
    return f"SELECT * FROM {COMMIT}(TABLE({written}) WITH SINGLE PARTITION)"  # noqa: S608 -- names of this module


def _unregister(spark: SparkSession) -> None:
    """None of another build must stay, or whoever calls them one by one would run that build for this one."""
    for name in (ENCODE, BULK_LOAD, COMMIT):
        spark.sql(f"DROP TEMPORARY FUNCTION IF EXISTS {name}")
    spark.catalog.dropTempView(SOURCE_VIEW)


def _said(finished: Manifest) -> str:
    """What `redkv_commit` would say of a version that was there, without any work."""
    totals = finished.totals
    numbers = (f"{number}L AS {name}" for name, number in (("keys", totals.keys), ("entries", totals.entries), ("bytes", totals.bytes)))
    key = manifest_key(finished.dataset, finished.version)
    return f"SELECT '{key}' AS manifest_key, '{finished.build_id}' AS build_id, {', '.join(numbers)}, true AS existed"


def _refuse_empty(spec: DatasetSpec, plan: Plan) -> NoReturn:
    """Spark never calls a function on a table without rows, so nothing would be committed, and nothing said."""
    assemble(spec, plan.task.version, plan.task.build_id, plan.built_at_ms, [])
    message = f"dataset {spec.dataset} {plan.task.version} has no row, and table functions see none: build an empty version by spark-submit"
    raise DataError(message, dataset=spec.dataset, version=plan.task.version)


def _encode(plan: Plan) -> UserDefinedTableFunction:
    encoder, placement = plan.encoder, plan.task.placement

    class Encode:
        def eval(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
            for batch in encode_all(encoder, [rows]):
                yield placement.place(batch, encoder.schema)

    return _function(Encode, encoder.schema.placed_ddl)


def _bulk_load(task: PartitionTask, order: tuple[str, ...]) -> UserDefinedTableFunction:
    class BulkLoad:
        def __init__(self) -> None:
            self._spool = Spool()
            self._last: pa.RecordBatch | None = None

        def eval(self, rows: pa.RecordBatch) -> None:
            check_order([self._last, rows] if self._last else [rows], order)
            self._last = rows.slice(rows.num_rows - 1)
            self._spool.add(rows)

        def terminate(self) -> Iterator[pa.RecordBatch]:
            counters: list[Counters] = []
            for one in task.records(self._spool.batches()):
                if one.counters:
                    counters.append(one.counters)
                else:
                    yield _file_row(one)
            yield _file_row(Written(counters=_sum(counters)))

        def cleanup(self) -> None:
            self._spool.close()

    return _function(BulkLoad, FILES_DDL)


def _commit(spec: DatasetSpec, plan: Plan) -> UserDefinedTableFunction:
    task, built_at_ms = plan.task, plan.built_at_ms

    class Commit:
        def __init__(self) -> None:
            self._written: list[Written] = []

        def eval(self, rows: pa.RecordBatch) -> None:
            self._written += (Written.model_validate_json(text) for text in rows.column(_WRITTEN).to_pylist())

        def terminate(self) -> Iterator[pa.RecordBatch]:
            for one in self._written:
                if one.failure is not None:
                    raise RedkvError.from_json(one.failure)
            metas = split_metas(task, (one.folded for one in self._written if one.folded))
            manifest = assemble(spec, task.version, task.build_id, built_at_ms, [*self._written, *metas])
            built = publish(ObjectStore(task.store_url), manifest)
            totals = built.manifest.totals
            key = manifest_key(task.dataset, task.version)
            yield _row(
                manifest_key=key,
                build_id=built.manifest.build_id,
                keys=totals.keys,
                entries=totals.entries,
                bytes=totals.bytes,
                existed=built.existed,
            )

    return _function(Commit, COMMITTED_DDL)


def check_order(batches: list[pa.RecordBatch], order: tuple[str, ...]) -> None:
    """Refuse rows that are not sorted by these columns, NULL first."""
    table = pa.Table.from_batches(batches)
    rows = table.num_rows - 1
    same = pa.array(np.ones(rows, dtype=bool))
    for name in order:
        column = table.column(name).combine_chunks()
        before, after = column.slice(0, rows), column.slice(1)
        below = pc.fill_null(pc.less(after, before), pc.and_(pc.is_null(after), pc.is_valid(before)))
        if pc.any(pc.and_(same, below)).as_py():
            message = f"the rows of {BULK_LOAD} are not sorted by {name}: call it with PARTITION BY partition ORDER BY ({', '.join(order)})"
            raise DataError(message, column=name)
        same = pc.and_(same, pc.fill_null(pc.equal(after, before), pc.and_(pc.is_null(after), pc.is_null(before))))


class Spool:
    """Batches that come one by one, on disk until all are there."""

    def __init__(self) -> None:
        self._folder = task_folder("redkv-spool-")
        self._path = Path(self._folder.name) / "rows.arrow"
        self._file: IO[bytes] | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep one more."""
        if self._writer is None:
            self._file = self._path.open("wb")
            self._writer = pa.ipc.new_stream(self._file, batch.schema)
        self._writer.write_batch(batch)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them, in their order."""
        if self._writer is None or self._file is None:
            return
        self._writer.close()
        self._file.close()
        with pa.ipc.open_stream(self._path) as reader:
            yield from reader

    def close(self) -> None:
        """Delete them."""
        if self._file is not None:
            self._file.close()
        self._folder.cleanup()


def _function(handler: type, ddl: str) -> UserDefinedTableFunction:
    return cast("UserDefinedTableFunction", arrow_udtf(handler, returnType=ddl))


def _sum(counters: list[Counters]) -> Counters:
    return Counters(
        rows=sum(one.rows for one in counters),
        skipped=sum(one.skipped for one in counters),
        duplicates=sum(one.duplicates for one in counters),
    )


def _file_row(one: Written) -> pa.RecordBatch:
    file = one.file
    return _row(
        object_key=file.object_key if file else None,
        keys=file.keys if file else None,
        entries=file.entries if file else None,
        bytes=file.bytes if file else None,
        written=one.model_dump_json(),
    )


def _row(**values: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([values])
