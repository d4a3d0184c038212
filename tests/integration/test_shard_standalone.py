"""A shard outside of cluster mode: a plain redis-py client on any slots, Redis' answers about the cluster that there is none of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pipeline.format.slots import key_slot
from pipeline.format.values import encode_hash
from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, topology_of
from tests.support.versions import ALL_SLOTS, publish_version

OK = b"+OK\r\n"


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    one = ShardProcess("alone", tmp_path / "s", free_port(), {"cluster_enabled": "false"})
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_take_keys_of_several_slots(shard: ShardProcess, protocol: int) -> None:
    values = {f"key:{number}": str(number) for number in range(50)}
    assert len({key_slot(key.encode()) for key in values}) > 40
    with redis.Redis(host="127.0.0.1", port=shard.port, protocol=protocol, decode_responses=True) as client:
        assert client.mset(values)
        assert client.mget(*values, "nothing") == [*values.values(), None]
        assert client.exists(*values, "nothing") == 50
        assert client.touch(*values) == 50
        assert client.msetnx({"key:1": "x", "other": "x"}) == 0
        assert client.get("other") is None
        assert client.msetnx({"other": "x", "another": "y"}) == 1
        assert client.delete("key:0", "key:1", "nothing") == 2
        assert client.unlink(*values) == 48
        assert client.exists(*values) == 0
        assert client.get("other") == "x"
        info = client.info()
        assert (info["redis_mode"], info["cluster_enabled"], info["role"]) == ("standalone", 0, "master")
        assert client.execute_command("HELLO")["mode"] == "standalone" if protocol == 3 else client.ping()


def test_a_write_over_several_slots_survives_a_kill(shard: ShardProcess) -> None:
    with redis.Redis(host="127.0.0.1", port=shard.port) as client:
        assert client.mset({f"key:{number}": number for number in range(50)})
    shard.kill()
    shard.start()
    with redis.Redis(host="127.0.0.1", port=shard.port) as client:
        assert client.mget([f"key:{number}" for number in range(50)]) == [b"%d" % number for number in range(50)]


def test_what_is_said_of_the_cluster_is_what_redis_says(shard: ShardProcess, tmp_path: Path) -> None:
    with running_redis(tmp_path, cluster=False) as port, RawClient(port) as theirs, RawClient(shard.port) as ours:
        for words in (
            ("CLUSTER",),
            ("CLUSTER", "NOSUCH"),
            ("CLUSTER", "KEYSLOT"),
            ("CLUSTER", "KEYSLOT", "a"),
            ("CLUSTER", "SLOTS"),
            ("CLUSTER", "HELP"),
            ("CLUSTER", "COUNTKEYSINSLOT", "x"),
            ("CLUSTER", "MEET", "127.0.0.1", "1"),
            ("READONLY",),
            ("READWRITE",),
            ("ROLE",),
            ("SELECT", "0"),
            ("SELECT", "99"),
            ("SELECT", "-1"),
            ("SELECT", "x"),
            ("SELECT", "99999999999"),
            ("MGET", "a", "b"),
        ):
            assert ours.call(*words) == theirs.call(*words), words
        assert ours.call("SELECT", 1) == b"-ERR DB index is out of range\r\n"  # one database, not Redis' sixteen


def test_datasets_are_served_with_and_without_a_topology(shard: ShardProcess) -> None:
    rows = {b"plane_%d" % number: encode_hash([(b"tail", b"N%d" % number)]) for number in range(100)}
    publish_version(shard.paths, "plane", "2026-11-22", rows)
    shard.follow(topology_of([ShardProcess("another", shard.data_dir, 7_001)], [ALL_SLOTS], epoch=4))
    with RawClient(shard.admin_socket) as admin:
        assert admin.call("REDKV", "REGISTER", "plane", "plane_") == OK
        assert admin.call("REDKV", "ACTIVATE", "plane", "2026-11-22") == OK
        assert admin.call("REDKV", "TOPOLOGY") == b":4\r\n"
    with redis.Redis(host="127.0.0.1", port=shard.port) as client:
        for number in range(100):
            assert client.hget(f"plane_{number}", "tail") == b"N%d" % number
        with pytest.raises(redis.exceptions.NoPermissionError, match="'plane'"):
            client.mset({"free": "x", "plane_1": "x"})
        assert client.get("free") is None
