"""Slots that nobody owns: the same checks in the same order, with the same texts, as redis-server without full coverage."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.format.slots import even_ranges
from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, topology_of

WAIT_S = 30.0
SERVED, ALSO_SERVED, UNSERVED, ALSO_UNSERVED = "bar", "{bar}2", "foo", "{foo}2"  # slots 5061 and 12182

ASKED = (
    ("GET", SERVED),
    ("GET", UNSERVED),
    ("SET", UNSERVED, "x"),
    ("SET", UNSERVED),
    ("MGET", SERVED, ALSO_SERVED),
    ("MGET", UNSERVED, ALSO_UNSERVED),
    ("MGET", SERVED, UNSERVED),
    ("MGET", UNSERVED, SERVED),
    ("MSET", SERVED, "1", UNSERVED, "2"),
    ("MSET", UNSERVED, "1", SERVED, "2"),
    ("MSET", UNSERVED, "1", SERVED),
    ("DEL", ALSO_UNSERVED, SERVED),
    ("RENAME", SERVED, UNSERVED),
    ("RENAME", UNSERVED, UNSERVED),
    ("WATCH", SERVED, UNSERVED),
    ("EXISTS", SERVED, SERVED),
    ("NOSUCH", UNSERVED),
    ("MULTI",),
    ("SET", SERVED, "x"),
    ("GET", UNSERVED),
    ("EXEC",),
    ("READONLY",),
    ("GET", UNSERVED),
    ("GET", SERVED),
    ("PING",),
)


def test_unserved_slots_are_refused_as_redis_does(tmp_path: Path) -> None:
    shard = ShardProcess("node-1-a", tmp_path / "s", free_port())
    shard.follow(topology_of([shard], [even_ranges(2)[:1]]))
    with running_redis(tmp_path) as port, RawClient(port) as theirs:
        assert theirs.call("CONFIG", "SET", "cluster-require-full-coverage", "no") == b"+OK\r\n"
        assert theirs.call("CLUSTER", "DELSLOTSRANGE", 8192, 16383) == b"+OK\r\n"
        deadline = time.monotonic() + WAIT_S
        while theirs.call("GET", SERVED) != b"$-1\r\n":
            assert time.monotonic() < deadline, "redis-server does not serve its half"
            time.sleep(0.02)
        shard.start()
        try:
            with RawClient(shard.port) as ours:
                for words in ASKED:
                    assert ours.call(*words) == theirs.call(*words), words
        finally:
            shard.stop()
