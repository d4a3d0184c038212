"""The build job on real Spark, a real Hive metastore and a real S3."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyspark.sql import SparkSession

from pipeline.format.errors import (
    BuildFailedError,
    DataError,
    DuplicateKeyError,
    InvalidScoreError,
    NullValueError,
    SpecError,
    StoreUnavailableError,
    TableNotFoundError,
    UnknownColumnError,
)
from pipeline.format.layout import manifest_key
from pipeline.format.values import HashValue, StringValue, ZsetValue
from pipeline.load.build import run_build
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.stack.metastore import Metastore
from pipeline.store import ObjectStore
from tests.support.hive import hive_metastore, spark_conf
from tests.support.s3 import S3, s3_store
from tests.support.spark import local_spark
from tests.support.sstread import read_version
from udtf.build import Plan, assemble, build_version, described, plan_build, write
from udtf.progress import Seen, job_group, watched

VERSION = "2026-11-22"


@dataclass
class World:
    spark: SparkSession
    s3: S3
    metastore: Metastore

    @property
    def store(self) -> ObjectStore:
        return self.s3.store


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    settings = {"spark_sql_ansi_enabled": "false", "spark_ui_showConsoleProgress": "false"}
    with s3_store() as s3, hive_metastore() as metastore, local_spark(metastore, s3, master="local[2,2]", **settings) as spark:
        spark.sql("CREATE DATABASE features")
        spark.sql("CREATE TABLE features.person (id BIGINT, name STRING, ds STRING) STORED AS ORC")
        spark.sql(f"INSERT INTO features.person SELECT id, concat('name ', id), '{VERSION}' FROM range(5000)")
        spark.sql("INSERT INTO features.person VALUES (1, 'old', '2026-11-21')")
        spark.sql("CREATE TABLE features.score (grp STRING, member STRING, points DOUBLE) STORED AS PARQUET")
        spark.sql("INSERT INTO features.score VALUES ('a','x',2.5), ('a','y',-1), ('b','x',1e300), ('a','w',2.5), ('b','z',NULL)")
        yield World(spark, s3, metastore)


def spec(dataset: str, table: str, key: str, kind: str = "hash", **more: Any) -> DatasetSpec:
    document = {"dataset": dataset, "key": key, "type": kind, "mode": "replace", **more}
    document.setdefault("source", {})["table"] = table
    return parse_spec(document, "a test's spec")


def person(dataset: str, key: str = "{person:${shard(16)}}_${id}") -> DatasetSpec:
    return spec(dataset, "features.person", key, hash={"columns": ["name"]}, source={"where": "ds = '${date}'"})


def test_every_row_of_the_partition_becomes_its_hash_and_a_second_build_does_nothing(world: World) -> None:
    built = build_version(world.spark, person("person"), VERSION, world.store)
    template = person("person").key_template
    expected = {template.render({"id": str(one).encode()}): HashValue(((b"name", f"name {one}".encode()),)) for one in range(5000)}
    assert read_version(world.store, built.manifest) == expected
    assert (built.existed, built.manifest.totals.source_rows, built.manifest.totals.keys) == (False, 5000, 5000)
    before = sorted(one.key for one in world.store.list(""))
    again = build_version(world.spark, person("person"), VERSION, world.store)
    assert (again.existed, again.manifest) == (True, built.manifest)
    assert sorted(one.key for one in world.store.list("")) == before


def test_rows_of_a_key_become_one_sorted_set_in_rank_order(world: World) -> None:
    scores = spec("score", "features.score", "score:${grp}", "zset", zset={"member": "${member}", "score": "points"}, on_null="skip")
    manifest = build_version(world.spark, scores, VERSION, world.store).manifest
    assert read_version(world.store, manifest) == {
        b"score:a": ZsetValue(((b"y", -1.0), (b"w", 2.5), (b"x", 2.5))),
        b"score:b": ZsetValue(((b"x", 1e300),)),
    }
    totals = manifest.totals
    assert (totals.source_rows, totals.stored_rows, totals.skipped, totals.keys) == (5, 4, 1, 2)


def test_hive_types_have_the_text_forms_of_docs_types_md(world: World) -> None:
    world.spark.sql(
        "CREATE TABLE features.types (id INT, small TINYINT, price DECIMAL(20,8), ratio FLOAT, flag BOOLEAN, code CHAR(4), raw BINARY, "
        "day DATE, at TIMESTAMP, tags ARRAY<STRING>, counts MAP<STRING,INT>, place STRUCT<x:INT,y:STRING>, moments ARRAY<TIMESTAMP>, "
        "none STRING) STORED AS PARQUET"
    )
    world.spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    world.spark.sql(
        "INSERT INTO features.types SELECT 1, 7Y, 0.00000001, 0.1F, true, 'ab', X'00FF', DATE'2026-01-31', TIMESTAMP'2026-01-31 05:00:00', "
        "array('a','b'), map('k',1), named_struct('x',1,'y','z'), array(TIMESTAMP'2026-01-31 05:00:00.0005'), NULL"
    )
    manifest = build_version(world.spark, spec("types", "features.types", "types:${id}"), VERSION, world.store).manifest
    (value,) = read_version(world.store, manifest).values()
    assert isinstance(value, HashValue)
    assert dict(value.pairs) == {
        b"small": b"7",
        b"price": b"0.00000001",
        b"ratio": b"0.1",
        b"flag": b"true",
        b"code": b"ab  ",
        b"raw": b"\x00\xff",
        b"day": b"2026-01-31",
        b"at": b"2026-01-31T10:00:00Z",
        b"tags": b'["a","b"]',
        b"counts": b'{"k":1}',
        b"place": b'{"x":1,"y":"z"}',
        b"moments": b'["2026-01-31T10:00:00.000500Z"]',
    }


def test_strings(world: World) -> None:
    names = spec("names", "features.person", "name:${id}", "string", string={"column": "name"}, source={"where": "ds = '2026-11-21'"})
    assert read_version(world.store, build_version(world.spark, names, VERSION, world.store).manifest) == {b"name:1": StringValue(b"old")}


def test_several_columns_become_one_json_string_and_keys_expire_as_the_spec_says(world: World) -> None:
    shape = {"string": {"columns": ["id", "name"]}, "ttl": {"seconds": 60}, "source": {"where": "ds = '2026-11-21'"}}
    built = build_version(world.spark, spec("json", "features.person", "json:${id}", "string", **shape), VERSION, world.store)
    expiry = built.manifest.built_at_ms + 60_000
    assert read_version(world.store, built.manifest) == {b"json:1": StringValue(b'{"id":1,"name":"old"}', expiry)}
    assert [sample.expires_at_ms for sample in built.manifest.samples] == [expiry]


REFUSED = [
    ("no-table", {"table": "features.people", "key": "p:${id}"}, TableNotFoundError, "no table features.people"),
    (
        "no-column",
        {"table": "features.person", "key": "p:${idd}"},
        UnknownColumnError,
        "columns id, name, ds.*has no column idd.*did you mean id",
    ),
    ("filter", {"table": "features.person", "key": "p:${id}", "source": {"where": "day = 1"}}, SpecError, "field source.where"),
    ("duplicate", {"table": "features.person", "key": "p:${id}"}, DuplicateKeyError, "for instance p:1: make the key template unique"),
    ("empty", {"table": "features.person", "key": "p:${id}", "source": {"where": "id < 0"}}, DataError, "the filter matched no row"),
    (
        "null",
        {"table": "features.score", "key": "p:${grp}", "kind": "zset", "zset": {"member": "${member}", "score": "points"}},
        NullValueError,
        "NULL in column points of the row",
    ),
    (
        "text-score",
        {"table": "features.score", "key": "p:${grp}", "kind": "zset", "zset": {"member": "${member}", "score": "member"}},
        SpecError,
        "name a numeric column",
    ),
]


@pytest.mark.parametrize(("name", "made_of", "error", "message"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_cant_be_built_is_named_and_leaves_no_manifest(
    world: World, name: str, made_of: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_version(world.spark, spec(name, **made_of), VERSION, world.store)
    assert not [one.key for one in world.store.list(f"datasets/{name}/") if one.key.endswith("manifest.json")]


def test_nan_scores_are_refused(world: World) -> None:
    world.spark.sql("CREATE TABLE features.nan STORED AS ORC AS SELECT 'a' grp, 'm' member, double('NaN') points")
    with pytest.raises(InvalidScoreError, match="score NaN in column points"):
        build_version(
            world.spark,
            spec("nan", "features.nan", "n:${grp}", "zset", zset={"member": "${member}", "score": "points"}),
            VERSION,
            world.store,
        )


def with_store(world: World, one: DatasetSpec, open_store: Callable[[str], Any]) -> Plan:
    plan = plan_build(world.spark, one, VERSION, world.store.root, 0)
    return replace(plan, task=replace(plan.task, open_store=open_store))


def test_a_store_that_is_away_once_costs_a_repeated_task_and_no_row_twice(world: World, tmp_path: Path) -> None:
    def store(url: str) -> Any:
        class AwayOnce:
            def upload(self, path: Path, key: str, sha256: str) -> None:
                partition = key.rpartition("/")[2].split("-")[0]
                if not (tmp_path / partition).exists():
                    (tmp_path / partition).touch()
                    raise StoreUnavailableError(f"away at the first try of {partition}")
                ObjectStore(url).upload(path, key, sha256)

        return AwayOnce()

    once = person("once")
    manifest = assemble(once, VERSION, "b", 0, write(with_store(world, once, store)))
    assert {file.object_key.rpartition("/")[2].partition("-")[0] for file in manifest.files} == {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 4  # two tasks per core
    assert (manifest.totals.source_rows, manifest.totals.keys, len(read_version(world.store, manifest))) == (5000, 5000, 5000)


def test_a_store_that_stays_away_ends_the_build_by_its_name(world: World) -> None:
    def store(_: str) -> Any:
        class Away:
            def upload(self, path: Path, key: str, sha256: str) -> None:
                raise StoreUnavailableError("away for good")

        return Away()

    away = person("away")
    with pytest.raises(StoreUnavailableError, match="away for good"):
        write(with_store(world, away, store))


def test_a_view_over_a_table_that_is_gone_is_named(world: World) -> None:
    world.spark.sql("CREATE TABLE features.base STORED AS ORC AS SELECT 1 id, 2 x")
    world.spark.sql("CREATE VIEW features.hollow AS SELECT id, x FROM features.base")
    world.spark.sql("DROP TABLE features.base")
    with pytest.raises(SpecError, match=r"can't read features\.hollow: .*TABLE_OR_VIEW_NOT_FOUND"):
        build_version(world.spark, spec("hollow", "features.hollow", "p:${id}"), VERSION, world.store)


def test_spark_submit_builds_through_the_thrift_metastore_and_brings_errors_home(world: World, tmp_path: Path) -> None:
    settings = ClusterSettings(
        store=world.s3.fresh().url, cluster="c", metastore_uris=world.metastore.uri, spark_conf=spark_conf(world.metastore)
    )
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(person("person").model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    bad.write_text(
        good.read_text(encoding="utf-8").replace("features.person", "features.people").replace("dataset: person", "dataset: people"),
        encoding="utf-8",
    )
    run_build(settings, good, VERSION, tmp_path / "good.log")
    assert len([one for one in ObjectStore(settings.store).list("") if one.key.endswith("manifest.json")]) == 1
    with pytest.raises(TableNotFoundError, match=r"no table features\.people"):
        run_build(settings, bad, VERSION, tmp_path / "bad.log")
    log = (tmp_path / "bad.log").read_text(encoding="utf-8")
    assert "error: TableNotFoundError" in log
    assert "Traceback" not in log


def test_what_spark_itself_fails_at_comes_home_in_one_sentence(world: World, tmp_path: Path) -> None:
    settings = ClusterSettings(
        store=world.s3.fresh().url, cluster="c", metastore_uris=world.metastore.uri, spark_conf=spark_conf(world.metastore)
    )
    divides = spec("divides", "features.person", "p:${id}", source={"where": "1 / (id - 5) > -2"})
    file = tmp_path / "divides.yaml"
    file.write_text(yaml.safe_dump(divides.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    with pytest.raises(BuildFailedError, match=r"built from features\.person: .*Division by zero") as failed:
        run_build(settings, file, VERSION, tmp_path / "divides.log")
    assert "\n" not in failed.value.message
    assert manifest_key("divides", VERSION) not in [one.key for one in ObjectStore(settings.store).list("")]


def test_credentials_are_in_no_log_and_no_argument(world: World, tmp_path: Path) -> None:
    secret = world.s3.environment["AWS_SECRET_ACCESS_KEY"]
    settings = ClusterSettings(
        store=world.s3.fresh().url, cluster="c", metastore_uris="thrift://127.0.0.1:1", spark_conf=spark_conf(world.metastore)
    )
    spec_file, log = tmp_path / "person.yaml", tmp_path / "build.log"
    spec_file.write_text("dataset: [", encoding="utf-8")
    with pytest.raises(SpecError):
        run_build(settings, spec_file, VERSION, log)
    assert secret not in log.read_text(encoding="utf-8")
    assert secret not in subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_what_a_job_does_is_seen_while_it_runs(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def hold(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        while not go.exists():
            os.sched_yield()

    told: list[Seen | None] = []

    def tell(seen: Seen | None) -> None:
        told.append(seen)
        if seen:
            go.touch()

    dataset = person("watched")
    with watched(world.spark.sparkContext, job_group("watched", VERSION), tell), described(world.spark, dataset, VERSION, "hold"):
        world.spark.range(100, numPartitions=2).mapInArrow(hold, "id long").collect()
    seen, *_, end = told
    assert seen is not None
    assert (seen.step, seen.tasks, end) == (f"watched {VERSION}: hold", 2, None)
    assert world.spark.sparkContext.getLocalProperty("spark.jobGroup.id") is None
