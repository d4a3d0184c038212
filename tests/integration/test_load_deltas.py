"""Loads of deltas onto real nodes: verified, measured, rolled back and kept like any version. The last test builds them by Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from pyspark.sql import SparkSession
from redis.cluster import RedisCluster

from pipeline.format.errors import ShrunkVersionError, UsageError
from pipeline.load.coordinator import Coordinator
from pipeline.load.progress import LoadReport
from pipeline.load.removal import Pace, find_surplus, remove_surplus
from pipeline.load.waiting import Patience
from pipeline.settings import Keep, load_settings
from pipeline.spec import DatasetSpec
from pipeline.stack.local import Stack
from tests.support.builds import build, hash_spec
from tests.support.clusters import Cluster, running_cluster
from tests.support.listener import Recorder
from tests.support.s3 import s3_store

V1, V2, V3, V4 = "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24"
SPEC = hash_spec("person", "person:${id}")
BY_CHANGES = hash_spec("person", "person:${id}", changes={"table": "features.changes", "delete_if": "gone"})

Names = dict[int, str]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with TemporaryDirectory(prefix="rd-") as folder, s3_store() as s3, running_cluster(s3, Path(folder)) as one:
        yield one


def built(cluster: Cluster, version: str, names: Names, base: str | None = None) -> None:
    build(cluster.store, SPEC, version, {"id": list(map(str, names)), "name": list(names.values())}, base=base)


def changes(cluster: Cluster, version: str, names: dict[int, str | None], base: str) -> None:
    gone = [name is None for name in names.values()]
    table = {"id": list(map(str, names)), "name": [name or "" for name in names.values()], "gone": gone}
    build(cluster.store, BY_CHANGES, version, table, base=base)


def load(cluster: Cluster, version: str, spec: DatasetSpec = SPEC, base: str | None = None, *, allow_shrink: bool = False) -> LoadReport:
    coordinator = Coordinator(cluster.settings, Recorder(), Patience(stall_s_max=60))
    return coordinator.load(cluster.spec_file(spec), version, cluster.folder / "build.log", allow_shrink=allow_shrink, base=base)


def read(client: RedisCluster, numbers: range) -> Names:
    pipeline = client.pipeline()  # type: ignore[no-untyped-call]
    for number in numbers:
        pipeline.hget(f"person:{number}", "name")
    return {number: name for number, name in zip(numbers, pipeline.execute(), strict=True) if name is not None}


def test_deltas_are_verified_measured_rolled_back_and_kept_as_a_whole(cluster: Cluster) -> None:
    one = {number: f"one {number}" for number in range(400)}
    two = {**one, 5: "two 5", 900: "two 900"}
    two.pop(7)
    built(cluster, V1, one)
    built(cluster, V2, two, base=V1)
    load(cluster, V1)
    report = load(cluster, V2, base="active")
    assert (report.base, report.keys, report.keys_put, report.deletes, report.source_rows) == (V1, 400, 2, 1, 400)
    with cluster.client() as client:
        assert read(client, range(1000)) == two
        with pytest.raises(UsageError, match=f"lies on {V1}, not on 2026-11-20"):
            load(cluster, V2, base="2026-11-20")

        changes(cluster, V3, {5: None, 6: "three 6", 901: "three 901"}, V2)
        three = {**two, 6: "three 6", 901: "three 901"}
        three.pop(5)
        report = load(cluster, V3, BY_CHANGES, base=V2)
        assert (report.base, report.source_rows, report.keys_put, report.deletes) == (V2, 3, 2, 1)
        assert read(client, range(1000)) == three

        cluster.swapper().rollback("person")
        assert read(client, range(1000)) == two
        cluster.swapper().rollback("person", V1)  # nodes gave it up, the store has it
        assert read(client, range(1000)) == one
        cluster.swapper().activate("person", V3)
        assert read(client, range(1000)) == three
    assert cluster.redkv("verify", "person").returncode == 0
    shown = json.loads(cluster.redkv("versions", "person", "-o", "json").stdout)["versions"]
    assert {one["version"]: (one["base"], one["keys"]) for one in shown} == {V1: (None, 400), V2: (V1, 400), V3: (V2, None)}
    assert [one["version"] for one in shown if one["mark"] == "active"] == [V3]


def test_the_size_of_a_delta_is_that_of_the_whole(cluster: Cluster) -> None:
    names = {number: f"one {number}" for number in range(400)}
    built(cluster, V1, names)
    load(cluster, V1)
    few = dict(list(names.items())[:150])
    built(cluster, V2, few, base=V1)
    with pytest.raises(ShrunkVersionError, match="holds 150 rows, the active version 2026-11-21 holds 400"):
        load(cluster, V2)
    changes(cluster, V3, dict.fromkeys(range(250)), V1)
    with pytest.raises(ShrunkVersionError, match="comes to 150 keys, the active version 2026-11-21 holds 400"):
        load(cluster, V3, BY_CHANGES)
    assert [one.version for one in cluster.dataset(SPEC).versions] == [V1]  # withdrawn
    assert load(cluster, V3, BY_CHANGES, allow_shrink=True).changed
    built(cluster, V4, dict(list(names.items())[300:360]), base=V3)
    with pytest.raises(ShrunkVersionError, match="comes to 60 keys, the active version 2026-11-23 holds 150"):
        load(cluster, V4)


def test_the_store_keeps_what_a_kept_delta_lies_on(cluster: Cluster) -> None:
    store, names = cluster.store, dict.fromkeys(range(20), "a")
    for version, base in ((V1, None), (V2, V1), (V3, None), (V4, None)):
        built(cluster, version, {**names, 1: version}, base)

    def surplus(versions: int) -> list[str]:
        return [one.version for one in find_surplus(store, Keep(versions=versions), 10**15)]

    assert [surplus(count) for count in (4, 3, 2, 1)] == [[], [], [V1, V2], [V1, V2, V3]]
    first, second = list(find_surplus(store, Keep(versions=2), 10**15))
    assert not remove_surplus(store, first, Pace(1e6))  # a delta that is there lies on it
    assert remove_surplus(store, second, Pace(1e6))
    assert remove_surplus(store, first, Pace(1e6))
    assert surplus(1) == [V3]


def make_tables(settings_path: Path) -> None:
    """Two days of a table, and the changes of a third one."""
    settings = load_settings(settings_path)
    options: dict[str, bool | float | int | str | None] = {
        "spark.hadoop.hive.metastore.uris": settings.metastore_uris,
        **settings.spark_conf,
    }
    spark = SparkSession.builder.master("local[2]").config(map=options).enableHiveSupport().getOrCreate()
    spark.sql("CREATE DATABASE features")
    first = f"SELECT id, concat('one ', id) AS name, '{V1}' AS ds FROM range(3000)"
    second = f"SELECT id, if(id % 100 = 0, concat('two ', id), concat('one ', id)) AS name, '{V2}' AS ds FROM range(10, 3020)"
    spark.sql(f"CREATE TABLE features.person STORED AS PARQUET AS {first} UNION ALL {second}")
    spark.sql(
        f"CREATE TABLE features.changes STORED AS PARQUET AS SELECT id, 'three' AS name, id % 2 = 1 AS gone, '{V3}' AS ds FROM range(50)"
    )
    spark.stop()


@pytest.mark.full
def test_deltas_from_two_partitions_and_from_a_table_of_changes_by_spark(tmp_path: Path) -> None:
    where = "ds = '${date}'"
    spec = hash_spec(
        "person", "person:${id}", "features.person", hash={"columns": ["name"]}, source={"table": "features.person", "where": where}
    )
    by_changes = spec.model_dump(mode="json", exclude_none=True)
    by_changes["changes"] = {"table": "features.changes", "where": where, "delete_if": "gone"}
    documents = {"spec": spec.model_dump(mode="json", exclude_none=True), "changes": by_changes}
    for name, document in documents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    before, stack = dict(os.environ), Stack(tmp_path / "stack")
    try:
        stack.start()
        process = get_context("spawn").Process(target=make_tables, args=(stack.settings_path,))
        process.start()
        process.join()
        assert process.exitcode == 0

        def redkv(*arguments: str) -> dict[str, object]:
            command = [sys.executable, "-m", "pipeline.cli", "--config", str(stack.settings_path), *arguments, "-o", "json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stderr
            found: dict[str, object] = json.loads(done.stdout)
            return found

        one = {number: f"one {number}" for number in range(3000)}
        two = {number: f"two {number}" if number % 100 == 0 else f"one {number}" for number in range(10, 3020)}
        three = {number: name for number, name in two.items() if number >= 50 or number % 2 == 0} | dict.fromkeys(range(0, 50, 2), "three")
        first = stack.topology.shards[0]
        with RedisCluster(host=first.host, port=first.port, decode_responses=True) as client:
            assert redkv("load", str(tmp_path / "spec.yaml"), "--version", V1, "--base", "active")["base"] is None  # there is none yet
            assert read(client, range(3100)) == one
            report = redkv("load", str(tmp_path / "spec.yaml"), "--version", V2, "--base", "active")
            assert (report["base"], report["keys"], report["keys_put"], report["deletes"]) == (V1, 3010, 29 + 20, 10)
            assert read(client, range(3100)) == two
            report = redkv("load", str(tmp_path / "changes.yaml"), "--version", V3, "--base", V2)
            assert (report["base"], report["source_rows"], report["keys_put"], report["deletes"]) == (V2, 50, 25, 25)
            assert read(client, range(3100)) == three
            redkv("rollback", "person")
            assert read(client, range(3100)) == two
    finally:
        stack.remove()
        os.environ.clear()
        os.environ.update(before)
