"""What survives: kills at any moment under writes, logs torn at any offset, and when the disk is waited for.

A writer sends its commands one after the other and remembers which were acknowledged. What is there after a crash must be what some
prefix of its commands made, and with a kill (which the page cache survives) one that holds every acknowledged command.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.retry import Retry

from pipeline.format.keys import ELEMENT_KINDS, Kind, parse_key, parse_sortable_score
from pipeline.format.values import BigValue, HashValue, StringValue, ZsetValue, decode_value, parse_element_score
from server.storage.rocks import BlockCache, Database
from tests.support.resp import REPLY_WAIT_S
from tests.support.shards import ShardProcess, running_shards

KILLS = 5
KILLS_FULL = 50
TORN_AT = 120  # offsets of one log
WRITES_BEFORE_KILL = (40, 400)
SMALL = {"hash_max_listpack_entries": 4, "zset_max_listpack_entries": 4}  # so that a few writes make a big collection

Step = tuple[str | int, ...]
State = dict[bytes, object]


def steps_of(seed: int) -> Iterator[Step]:
    """Commands without an end: each changes one of a few keys of every type."""
    chance = random.Random(seed)
    for number in range(1_000_000):
        match chance.randrange(8):
            case 0 | 1:
                yield "SET", f"s{chance.randrange(5)}", number
            case 2 | 3:
                yield "HSET", f"h{chance.randrange(3)}", f"f{chance.randrange(12)}", number
            case 4:
                yield "HDEL", f"h{chance.randrange(3)}", *(f"f{chance.randrange(12)}" for _ in range(3))
            case 5 | 6:
                yield "ZADD", f"z{chance.randrange(3)}", chance.randrange(100), f"m{chance.randrange(12)}"
            case _:
                yield "DEL", chance.choice(["s1", "h1", "z1"])


def applied(state: State, step: Step) -> State:
    """A plain model of these commands."""
    name, key, *rest = (str(word).encode() for word in step)
    after = dict(state)
    match name:
        case b"SET":
            after[key] = rest[0]
        case b"DEL":
            after.pop(key, None)
        case b"HSET":
            after[key] = {**_dict(after.get(key)), rest[0]: rest[1]}
        case b"HDEL":
            after[key] = {field: value for field, value in _dict(after.get(key)).items() if field not in rest}
        case b"ZADD":
            after[key] = {**_dict(after.get(key)), rest[1]: float(rest[0])}
    if after.get(key) == {}:
        del after[key]
    return after


def _dict(value: object) -> dict[bytes, object]:
    return value if isinstance(value, dict) else {}


def stored(path: Path) -> State:
    """All live keys of a shard that does not run, read from RocksDB; every big collection is whole, or this fails."""
    database = Database.open_live(path, BlockCache(1 << 20), 1 << 20)
    try:
        entries = [(parse_key(key), value) for key, value in database.entries_from(b"")]
    finally:
        database.close()
    elements: dict[tuple[Kind, bytes, int], list[tuple[bytes, bytes]]] = {}
    for key, value in entries:
        if key.kind in ELEMENT_KINDS:
            elements.setdefault((key.kind, key.user_key, key.version), []).append((key.detail, value))
    state: State = {}
    for key, raw in entries:
        if key.kind is not Kind.META:
            continue
        match decode_value(raw):
            case StringValue(value):
                state[key.user_key] = value
            case HashValue(pairs):
                state[key.user_key] = dict(pairs)
            case ZsetValue(members):
                state[key.user_key] = dict(members)
            case BigValue(_, version, count):
                state[key.user_key] = _whole(elements, key.user_key, version, count)
    return state


def _whole(elements: dict[tuple[Kind, bytes, int], list[tuple[bytes, bytes]]], key: bytes, version: int, count: int) -> dict[bytes, object]:
    fields = elements.get((Kind.HASH_FIELD, key, version))
    if fields is not None:
        assert len(fields) == count
        return dict(fields)
    members = {member: parse_element_score(raw) for member, raw in elements[Kind.ZSET_MEMBER, key, version]}
    ranks = [(detail[8:], parse_sortable_score(detail[:8])) for detail, _ in elements[Kind.ZSET_RANK, key, version]]
    assert members == dict(ranks)
    assert len(ranks) == len(members) == count
    return dict(members)


class Writer(threading.Thread):
    """Writes until the shard is gone; `sent` are its commands, of which the first `acknowledged` were answered."""

    def __init__(self, port: int, seed: int, enough: int) -> None:
        super().__init__()
        self.sent: list[Step] = []
        self.acknowledged = 0
        self.reached = threading.Event()
        self._port, self._seed, self._enough = port, seed, enough

    def run(self) -> None:
        with Redis(port=self._port, socket_timeout=REPLY_WAIT_S, retry=Retry(NoBackoff(), 0)) as client:
            for step in steps_of(self._seed):
                self.sent.append(step)
                try:
                    client.execute_command(*step)
                except (Disconnected, OSError):
                    self.reached.set()
                    return
                self.acknowledged += 1
                if self.acknowledged == self._enough:
                    self.reached.set()

    def states(self) -> list[State]:
        """What each prefix of the commands makes, the empty one first."""
        found: list[State] = [{}]
        for step in self.sent:
            found.append(applied(found[-1], step))
        return found


@pytest.fixture
def shard() -> Iterator[ShardProcess]:
    with TemporaryDirectory(prefix="redkv-") as folder, running_shards(Path(folder), options=SMALL) as shards:
        yield shards[0]


def kill_under_writes(shard: ShardProcess, seed: int) -> Writer:
    writer = Writer(shard.port, seed, random.Random(seed).randint(*WRITES_BEFORE_KILL))
    writer.start()
    assert writer.reached.wait(60)
    shard.kill()
    writer.join()
    assert writer.acknowledged > 0, shard.log
    return writer


@pytest.mark.parametrize("rounds", [KILLS, pytest.param(KILLS_FULL, marks=pytest.mark.full)])
def test_a_kill_loses_nothing_that_was_acknowledged(shard: ShardProcess, rounds: int) -> None:
    for seed in range(rounds):
        writer = kill_under_writes(shard, seed)
        state = stored(shard.paths.live)
        assert state in writer.states()[writer.acknowledged :], f"seed {seed}: {writer.sent[writer.acknowledged - 1 :]}"
        shard.start()
        with Redis(port=shard.port) as client:  # the next round begins with nothing
            assert all(client.delete(key) == 1 for key in state)


def test_a_log_torn_anywhere_gives_a_prefix_of_what_was_written(shard: ShardProcess) -> None:
    writer = kill_under_writes(shard, seed=7)
    states = writer.states()
    (log,) = shard.paths.live.glob("*.log")
    size = log.stat().st_size
    found = set()
    for offset in [*sorted(random.Random(7).sample(range(size), min(TORN_AT, size))), size]:
        with TemporaryDirectory(prefix="redkv-") as folder:
            torn = Path(folder) / "live"
            shutil.copytree(shard.paths.live, torn)
            with (torn / log.name).open("r+b") as tail:
                tail.truncate(offset)
            state = stored(torn)
        assert state in states, f"torn at {offset} of {size}"
        found.add(states.index(state))
    assert len(found) > TORN_AT // 4, "the offsets hit too few moments to say anything"


def info(client: Redis, field: str) -> int:
    return int(client.info("persistence")[field])


def awaited(what: Callable[[], bool], wait_s: float = 30) -> None:
    deadline = monotonic() + wait_s
    while not what():
        assert monotonic() < deadline


def test_always_syncs_before_each_reply_and_shares_syncs_among_clients(shard: ShardProcess) -> None:
    with Redis(port=shard.port) as client:
        client.config_set("appendfsync", "always")
        before = info(client, "wal_syncs")
        for number in range(20):
            client.set("k", number)
            assert info(client, "wal_syncs") >= before + number + 1
        with client.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.set("k", number)
            between = info(client, "wal_syncs")
            assert all(pipe.execute())
        assert info(client, "wal_syncs") <= between + 100 // 10, "the writes of one buffer share a sync"
        before = info(client, "wal_syncs")
        assert client.get("k") == b"99"
        assert info(client, "wal_syncs") == before, "a read waits for no disk"


def test_everysec_and_no_sync_when_they_say(shard: ShardProcess) -> None:
    with Redis(port=shard.port) as client:
        client.config_set("appendfsync", "everysec")
        before = info(client, "wal_syncs")
        client.set("k", 1)
        awaited(lambda: info(client, "wal_syncs") > before)
        client.config_set("appendfsync", "no")
        before = info(client, "wal_syncs")
        for number in range(200):
            client.set("k", number)
        assert info(client, "wal_syncs") <= before + 1, "one may have been under way"
