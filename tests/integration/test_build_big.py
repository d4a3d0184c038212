"""Giant keys through the real job and a real shard: split over tasks, read back by redis-py, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from redis import Redis

from pipeline.spec import parse_spec
from pipeline.store import ObjectStore
from tests.support.memory import WorkerMemory
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.spark import SparkStack
from tests.support.versions import publish_built
from udtf.build import build_version

VERSION = "2026-11-22"
WORKER_MIB_MAX = 1024
PAGE = 10_000


@dataclass(frozen=True)
class World:
    spark: SparkSession
    store: ObjectStore
    shard: ShardProcess

    def load(self, kind: str, elements: int) -> float:
        """Build, publish and activate a dataset of one giant key and a small one; the largest worker's memory in MiB."""
        shape = {"hash": {"field": "f${id}", "value": "value"}, "zset": {"member": "m${id}", "score": "value"}}[kind]
        table = f"big.{kind}_{elements}"
        columns = ("if(id < 3, 'small', 'giant') AS name", "id", "cast(id * 7919 % 1000003 AS double) AS value")
        self.spark.range(elements + 3).selectExpr(*columns).write.format("parquet").saveAsTable(table)
        document = {"dataset": kind, "source": {"table": table}, "key": f"{kind}:${{name}}", "type": kind, "mode": "replace", kind: shape}
        with WorkerMemory() as memory:
            built = build_version(self.spark, parse_spec(document, "a test's spec"), VERSION, self.store)
        tasks = {file.object_key.rpartition("/")[2].partition("-")[0] for file in built.manifest.files}
        assert len(tasks) > 2  # the giant was split
        publish_built(self.store, self.shard.paths, built.manifest)
        with RawClient(self.shard.admin_socket) as admin:
            assert admin.call("REDKV", "REGISTER", kind, f"{kind}:") == b"+OK\r\n"
            assert admin.call("REDKV", "ACTIVATE", kind, VERSION) == b"+OK\r\n"
        return memory.peak_mib


@pytest.fixture
def world(spark_stack: SparkStack, tmp_path: Path) -> Iterator[World]:
    with running_shards(tmp_path) as [shard]:
        yield World(spark_stack.session("big"), spark_stack.s3.fresh().store, shard)


def score_of(one: int) -> float:
    return float(one * 7919 % 1_000_003)


@pytest.mark.parametrize("members", [100_000, pytest.param(2_000_000, marks=pytest.mark.full)])
def test_a_giant_sorted_set_is_paged_through(world: World, members: int) -> None:
    assert world.load("zset", members) < WORKER_MIB_MAX
    client = Redis(port=world.shard.port)
    assert client.zcard("zset:giant") == members
    expected = sorted((score_of(one), b"m%d" % one) for one in range(3, members + 3))
    for first in range(0, members, PAGE):
        page = client.zrange("zset:giant", first, first + PAGE - 1, withscores=True)
        assert page == [(member, score) for score, member in expected[first : first + PAGE]]
    assert client.zscore("zset:giant", "m77") == score_of(77)
    last = client.zrange("zset:giant", "+inf", "-inf", byscore=True, desc=True, offset=0, num=2)
    assert last == [member for _, member in expected[:-3:-1]]
    assert client.zrange("zset:small", 0, -1) == [b"m0", b"m1", b"m2"]
    client.close()


@pytest.mark.parametrize("fields", [100_000, pytest.param(500_000, marks=pytest.mark.full)])
def test_a_giant_hash_is_scanned(world: World, fields: int) -> None:
    assert world.load("hash", fields) < WORKER_MIB_MAX
    client = Redis(port=world.shard.port)
    assert client.hlen("hash:giant") == fields
    found = list(client.hscan_iter("hash:giant", count=PAGE))
    assert len(found) == fields
    assert dict(found) == {b"f%d" % one: b"%d" % score_of(one) for one in range(3, fields + 3)}
    assert client.hget("hash:giant", "f99") == b"%d" % score_of(99)
    assert client.hmget("hash:giant", ["f3", "nope"]) == [b"%d" % score_of(3), None]
    client.close()
