"""Every expected key against what redis-py's RedisCluster reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from redis.cluster import ClusterPipeline, RedisCluster

from examples.nycflights.expected import Pair, Value

BATCH = 500  # keys per pipeline: replies of a batch are held in memory
SHOWN_MAX = 5  # differences printed per dataset
TIMEOUT_S = 30.0


@dataclass
class Comparison:
    """What came of one dataset: `shown` are the first differences in words."""

    keys: int = 0
    elements: int = 0
    mismatches: int = 0
    shown: list[str] = field(default_factory=list)

    def differs(self, words: str) -> None:
        """Note one difference."""
        self.mismatches += 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(words)


def connect(host: str, port: int) -> RedisCluster:
    """A cluster client that reads bytes."""
    return RedisCluster(host, port, socket_timeout=TIMEOUT_S)


def compare(cluster: RedisCluster, pairs: Iterable[Pair]) -> Comparison:
    """Read every key and compare it whole; `elements` counts the members of sorted sets, else keys."""
    found = Comparison()
    for batch in _batches(pairs):
        pipeline: ClusterPipeline = cluster.pipeline(transaction=False)  # type: ignore[no-untyped-call]
        for key, value in batch:
            ask(pipeline, key, value)
        for (key, value), reply in zip(batch, pipeline.execute(), strict=True):
            found.keys += 1
            found.elements += len(value) if isinstance(value, list) else 1
            if not same(value, reply):
                found.differs(f"{key!r}: the table says {_short(value)}, the cluster {_short(reply)}")
    return found


def absent(cluster: RedisCluster, keys: Iterable[bytes], found: Comparison) -> None:
    """Note every one of `keys` that exists, though it must not."""
    for key in keys:
        if cluster.exists(key):
            found.differs(f"{key!r} exists, though its row is gone")


def ask(reader: ClusterPipeline | RedisCluster, key: bytes, value: Value) -> Any:
    """The command that reads a key of that type whole."""
    if isinstance(value, dict):
        return reader.hgetall(key.decode())
    if isinstance(value, list):
        return reader.zrange(key.decode(), 0, -1, withscores=True)
    return reader.get(key)


def same(value: Value | None, reply: Any) -> bool:
    """Whether a reply is that value; None is an absent key. Scores come as pairs, which are lists in some protocol versions."""
    if value is None:
        return not reply
    if isinstance(value, list):
        return isinstance(reply, list) and [(member, score) for member, score in reply] == value
    return bool(reply == value)


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    source = iter(pairs)
    while batch := list(islice(source, BATCH)):
        yield batch


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
