from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.keys import element_head, local_key
from pipeline.format.slots import key_slot
from pipeline.format.values import ValueType, encode_big, encode_string
from server.storage import reclaim
from server.storage.datasets import DatasetIndex
from server.storage.engine import Engine
from server.storage.heads import ELEMENTS_OF
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.reclaim import Reclaim
from server.storage.rocks import BlockCache, Database

NOW_MS = 1_000_000
HASH_FIELD = ELEMENTS_OF[ValueType.HASH][0]


class Shard:
    """An engine whose time is set by hand, and its reclaim."""

    def __init__(self, database: Database) -> None:
        self.now_ms = NOW_MS
        self.seconds = 0.0
        self.busy: set[bytes] = set()
        self.database = database
        self.engine = Engine(LiveStore(database), DatasetIndex(), lambda: self.now_ms, HotCache(1 << 20))
        self.reclaim = Reclaim(self.engine, self.busy, lambda: self.seconds)

    def write(self, key: bytes, raw: bytes) -> None:
        self.engine.write(key, key_slot(key), raw)
        self.engine.live.commit()

    def one_round(self) -> int:
        """How many steps it took."""
        rounds, steps = self.reclaim.rounds, 0
        while self.reclaim.rounds == rounds:
            assert self.reclaim.step() > 0
            steps += 1
        return steps

    @property
    def keys(self) -> int:
        return len(list(self.database.entries_from(b"")))


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    database = Database.open_live(tmp_path / "live", BlockCache(1 << 20), 1 << 20)
    yield Shard(database)
    database.close()


def test_expired_keys_go_and_others_stay(shard: Shard) -> None:
    shard.database.put(local_key(b"note"), b"kept")
    for number in range(600):
        shard.write(b"k%d" % number, encode_string(b"x", [None, NOW_MS + 10, NOW_MS + 20][number % 3]))
    assert shard.one_round() > 1
    assert shard.keys == 601
    shard.now_ms += 10
    shard.one_round()
    assert (shard.keys, shard.engine.expired_keys) == (401, 200)
    shard.now_ms += 10
    shard.one_round()
    assert (shard.keys, shard.engine.expired_keys) == (201, 400)


def test_what_a_read_found_expired_goes_with_the_next_step(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim, "KEYS_PER_STEP_MAX", 1)
    for number in range(50):
        shard.write(b"k%d" % number, encode_string(b"x", NOW_MS + 1))
    shard.now_ms += 1
    assert shard.engine.read(b"k42", key_slot(b"k42")) is None
    shard.reclaim.step()
    assert shard.engine.expired_keys == 1
    assert shard.engine.live.get(b"".join((key_slot(b"k42").to_bytes(2), b"\x01k42"))) is None


def test_a_key_that_was_written_again_stays(shard: Shard) -> None:
    shard.write(b"k", encode_string(b"x", NOW_MS))
    assert shard.engine.read(b"k", key_slot(b"k")) is None
    shard.write(b"k", encode_string(b"y", NOW_MS + 1))
    shard.reclaim.step()
    assert shard.engine.read(b"k", key_slot(b"k")) is not None
    assert shard.engine.expired_keys == 0


def test_the_elements_of_an_expired_collection_are_left_to_the_sweep(shard: Shard) -> None:
    raw = encode_big(ValueType.HASH, 1, 1, NOW_MS)
    shard.write(b"k", raw)
    shard.database.put(element_head(HASH_FIELD, b"k", 1) + b"f", b"v")
    shard.one_round()
    assert list(shard.engine.abandoned) == [(b"k", key_slot(b"k"), raw)]
    assert shard.keys == 1


def test_a_key_that_a_command_is_changing_is_left_alone(shard: Shard) -> None:
    shard.write(b"k", encode_string(b"x", NOW_MS))
    shard.busy.add(b"k")
    shard.one_round()
    assert shard.keys == 1
    shard.busy.clear()
    shard.one_round()
    assert shard.keys == 0


def test_who_watches_is_not_told(shard: Shard) -> None:
    told: list[bytes | None] = []
    shard.write(b"k", encode_string(b"x", NOW_MS))
    shard.engine.on_change = told.append
    shard.one_round()
    assert (shard.keys, told) == (0, [])


def test_steps_are_bounded_in_keys_bytes_and_time(shard: Shard) -> None:
    for number in range(100):
        shard.write(b"k%d" % number, encode_string(bytes(reclaim.BYTES_PER_STEP_MAX // 10)))
    assert shard.one_round() >= 10
    ticks = iter(range(1_000_000))
    slow = Reclaim(shard.engine, shard.busy, lambda: next(ticks) * reclaim.STEP_S_MAX / 2)
    slow.step()
    assert slow.rounds == 0


def test_the_walk_hurries_while_much_has_expired(shard: Shard) -> None:
    for number in range(100):
        shard.write(b"k%d" % number, encode_string(b"x", NOW_MS))
    assert shard.reclaim.step() < shard.reclaim.step()
