"""Real client libraries and redis-cli against real shards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import redis
from redis.cluster import RedisCluster

from pipeline.format.values import encode_hash, encode_zset
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

KEYS = 300


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ShardProcess]]:
    rows = {f"plane_{number}".encode(): encode_hash([(b"tail", b"N%d" % number), (b"seats", b"%d" % number)]) for number in range(KEYS)}
    scores = {f"delay_{number}".encode(): encode_zset([(b"a", number / 2), (b"b", -1.0)]) for number in range(KEYS)}
    with running_shards(tmp_path_factory.mktemp("c"), 2) as started:
        for shard in started:
            publish_version(shard.paths, "plane", "2026-11-22", rows)
            publish_version(shard.paths, "delay", "2026-11-22", scores)
            with RawClient(shard.admin_socket) as admin:
                for dataset in ("plane", "delay"):
                    assert admin.call("REDKV", "REGISTER", dataset, f"{dataset}_") == b"+OK\r\n"
                    assert admin.call("REDKV", "ACTIVATE", dataset, "2026-11-22") == b"+OK\r\n"
        yield started


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_cluster_reads_and_writes_over_both_shards(shards: list[ShardProcess], protocol: int) -> None:
    with RedisCluster(host="127.0.0.1", port=shards[0].port, protocol=protocol, decode_responses=True) as client:
        for number in range(KEYS):
            assert client.hgetall(f"plane_{number}") == {"tail": f"N{number}", "seats": str(number)}
            assert client.zscore(f"delay_{number}", "a") == number / 2
            assert client.set(f"key:{number}", number, ex=1_000)
        assert client.hmget("plane_3", ["seats", "nothing"]) == ["3", None]
        assert [(member, score) for member, score in client.zrange("delay_4", 0, -1, withscores=True)] == [("b", -1.0), ("a", 2.0)]
        assert client.mget_nonatomic([f"key:{number}" for number in range(KEYS)]) == [str(number) for number in range(KEYS)]
        assert client.delete(*[f"key:{number}" for number in range(KEYS)]) == KEYS
        with pytest.raises(redis.exceptions.NoPermissionError, match="plane"):
            client.set("plane_1", "x")
        pipeline = client.pipeline()
        for number in range(KEYS):
            pipeline.hget(f"plane_{number}", "tail")
        assert pipeline.execute() == [f"N{number}" for number in range(KEYS)]
        assert {node.port for node in client.get_nodes()} == {shard.port for shard in shards}


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_plain_client_connects(shards: list[ShardProcess], protocol: int) -> None:
    with redis.Redis(host="127.0.0.1", port=shards[0].port, protocol=protocol, client_name="plain", decode_responses=True) as client:
        assert client.ping()
        assert client.client_getname() == "plain"
        assert client.info("server")["redis_version"] == "7.0.15"
        assert client.info()["cluster_enabled"] == 1
        assert client.command_count() == len(client.command())
        assert client.client_list()[0]["resp"] == str(protocol)
        with pytest.raises(redis.exceptions.MovedError):
            client.get("foo")  # of the other shard


def test_redis_cli_follows_redirections(shards: list[ShardProcess]) -> None:
    for key in ("plane_1", "plane_2", "plane_3", "plane_4"):
        command = ["redis-cli", "-c", "-p", str(shards[1].port), "HGET", key, "tail"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == f"N{key[6:]}"
