"""The build's steps called from SQL, against the same build by the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipeline.format.errors import DataError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.store import ObjectStore
from tests.support.spark import SparkStack
from tests.support.sstread import read_version
from udtf.build import build_version
from udtf.sql import BULK_LOAD, ENCODE, SOURCE_VIEW, register_functions

VERSION = "2026-11-22"
ROWS = 3000


@dataclass
class World:
    spark: SparkSession
    store: ObjectStore

    def both_ways(self, spec: DatasetSpec, clock: float) -> tuple[Manifest, Manifest]:
        """The version by SQL, and by the job under another name."""
        statement = register_functions(self.spark, spec, VERSION, self.store, lambda: clock)
        (row,) = self.spark.sql(statement).collect()
        manifest = Manifest.from_json(self.store.get(row.manifest_key).data, row.manifest_key)
        assert (row.keys, row.entries, row.bytes) == (manifest.totals.keys, manifest.totals.entries, manifest.totals.bytes)
        other = spec.model_copy(update={"dataset": f"{spec.dataset}_by_job"})
        return manifest, build_version(self.spark, other, VERSION, self.store, lambda: clock).manifest


@pytest.fixture(scope="module")
def world(spark_stack: SparkStack) -> World:
    spark = spark_stack.session("functions")
    columns = "id, concat('name ', id) AS name, array(id, id + 1) AS near, id % 40 AS grp, id % 977 / 4.0 AS points, id % 7 = 0 AS gone"
    spark.sql(f"CREATE TABLE functions.rows AS SELECT {columns} FROM range({ROWS})")
    return World(spark, spark_stack.s3.fresh().store)


def spec(dataset: str, **more: Any) -> DatasetSpec:
    return parse_spec({"dataset": dataset, "source": {"table": "functions.rows"}, "mode": "replace", **more}, "a test's spec")


SPECS = [
    spec("flat", key="user:${id}", type="hash", ttl={"seconds": 86_400}),
    spec("one_slot", key="{all}${id}", type="string", string={"columns": ["name", "near"]}),
    spec("ranked", key="rank:${grp}", type="zset", zset={"member": "m${id}", "score": "points"}, delete_if="gone"),
    spec("one_key", key="all:${gone}", type="zset", zset={"member": "m${grp}", "score": "points"}, on_duplicate={"last_by": "id"}),
]


@pytest.mark.parametrize("one", SPECS, ids=[one.dataset for one in SPECS])
def test_sql_writes_what_the_job_writes(world: World, one: DatasetSpec) -> None:
    sql, job = world.both_ways(one, 1_800_000_000.0)
    assert read_version(world.store, sql) == read_version(world.store, job)
    ignored = {"bytes"}
    assert sql.totals.model_dump(exclude=ignored) == job.totals.model_dump(exclude=ignored)
    assert [(file.smallest, file.content_digest) for file in sql.files] == [(file.smallest, file.content_digest) for file in job.files]


def test_a_bulk_load_has_a_row_per_file_and_a_committed_build_stands(world: World) -> None:
    statement = register_functions(world.spark, spec("twice", key="user:${id}", type="hash"), VERSION, world.store)
    inner = f"SELECT * FROM {BULK_LOAD}(TABLE(SELECT * FROM {ENCODE}(TABLE({SOURCE_VIEW}))) PARTITION BY partition ORDER BY ikey)"
    files = world.spark.sql(f"SELECT * FROM ({inner}) WHERE object_key IS NOT NULL").collect()
    assert sum(file.keys for file in files) == ROWS
    assert {file.object_key for file in files} <= {one.key for one in world.store.list("")}
    first, second = (world.spark.sql(statement).collect()[0] for _ in range(2))
    assert first.build_id == second.build_id
    manifest = Manifest.from_json(world.store.get(first.manifest_key).data, first.manifest_key)
    assert len(read_version(world.store, manifest)) == ROWS


def test_a_finished_version_is_not_built_again_and_the_statement_says_so(world: World) -> None:
    once = spec("once", key="user:${id}", type="hash")
    committed = world.spark.sql(register_functions(world.spark, once, VERSION, world.store))
    (first,) = committed.collect()
    register_functions(world.spark, spec("other", key="user:${id}", type="hash"), VERSION, world.store)
    before = sorted(one.key for one in world.store.list(""))
    again = world.spark.sql(register_functions(world.spark, once, VERSION, world.store))
    assert again.dtypes == committed.dtypes
    (second,) = again.collect()
    assert (first.existed, second.asDict()) == (False, {**first.asDict(), "existed": True})
    assert sorted(one.key for one in world.store.list("")) == before
    with pytest.raises(PySparkException, match=ENCODE):
        world.spark.sql(f"SELECT * FROM {ENCODE}(TABLE(SELECT 1 AS id))")
    assert not world.spark.catalog.tableExists(SOURCE_VIEW)


def test_rows_in_the_wrong_order_are_refused_and_no_manifest_is_written(world: World) -> None:
    statement = register_functions(world.spark, spec("unsorted", key="user:${id}", type="hash"), VERSION, world.store)
    with pytest.raises(PySparkException, match="ORDER BY"):
        world.spark.sql(statement.replace("ORDER BY (ikey)", "ORDER BY (value)")).collect()
    assert not [one.key for one in world.store.list(manifest_key("unsorted", VERSION))]


def test_bad_data_is_named_as_by_the_job(world: World) -> None:
    statement = register_functions(world.spark, spec("dup", key="user:${grp}", type="hash"), VERSION, world.store)
    with pytest.raises(PySparkException, match="on_duplicate"):
        world.spark.sql(statement).collect()
    assert not [one.key for one in world.store.list(manifest_key("dup", VERSION))]


def test_an_empty_table_is_refused_before_any_function_runs(world: World) -> None:
    source = {"table": "functions.rows", "where": "id < 0"}
    refused = parse_spec({"dataset": "none", "source": source, "mode": "replace", "key": "user:${id}", "type": "hash"}, "a test's spec")
    with pytest.raises(DataError, match="would be empty"):
        register_functions(world.spark, refused, VERSION, world.store)
    allowed = refused.model_copy(update={"allow_empty": True})
    with pytest.raises(DataError, match="spark-submit"):
        register_functions(world.spark, allowed, VERSION, world.store)
