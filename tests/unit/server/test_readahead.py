"""What is read ahead of an activation are the values that the version has, of hot keys of its dataset, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pipeline.format.layout import ShardPaths
from pipeline.format.values import ValueType, encode_compressed, encode_string, head
from server.storage.hotcache import ABSENT, HotCache
from server.storage.readahead import KEYS_PER_READ, KEYS_PER_TURN, read_ahead
from server.storage.rocks import BlockCache, Database
from tests.support.versions import publish_version

KEYS = [b"p:%04d" % number for number in range(2 * KEYS_PER_TURN)]
TEXT = b"long " * 1_000
PACKED = encode_compressed(TEXT)
assert PACKED is not None
ROWS = {key: encode_string(b"new " + key) for key in KEYS} | {b"p:packed": PACKED, b"p:newer": head(ValueType.STRING, flags=0x80)}


@pytest.fixture
def version(tmp_path: Path) -> Iterator[Database]:
    database = Database.open_version(publish_version(ShardPaths(tmp_path), "plane", "2026-11-22", ROWS), BlockCache(1 << 20))
    yield database
    database.close()


def hot(keys: list[bytes], bytes_max: int = 16 << 20) -> HotCache:
    cache = HotCache(bytes_max)
    for key in keys:
        cache.put(key, b"old")
    return cache


def renewed(cache: HotCache) -> dict[bytes, bytes]:
    cache.doubt(lambda key: key.startswith(b"p:"))
    cache.renew()
    return cache.young


def test_hot_keys_of_the_dataset_are_read_and_no_others(version: Database) -> None:
    mine = [KEYS[7], b"p:gone", b"p:packed", b"p:newer", *KEYS[-100:]]
    cache = hot([b"o:1", *mine, b"q:1"])
    assert asyncio.run(read_ahead(cache, b"p:", version, lambda: 0.0)) == len(mine)
    assert all(cache.young[key] == b"old" for key in mine)
    found = renewed(cache)
    assert found == {key: ROWS[key] for key in (KEYS[7], *KEYS[-100:])} | {b"p:gone": ABSENT, b"p:packed": encode_string(TEXT)}
    assert cache.from_old(b"o:1") == b"old"


def test_others_keys_alone_read_nothing(version: Database) -> None:
    cache = hot([b"o:%04d" % number for number in range(2 * KEYS_PER_TURN)])
    assert asyncio.run(read_ahead(cache, b"p:", version, lambda: 0.0)) == 0
    assert not renewed(cache)


def test_it_ends_when_its_time_is_over(version: Database) -> None:
    cache = hot(KEYS)
    assert asyncio.run(read_ahead(cache, b"p:", version, count(step=10).__next__)) == KEYS_PER_READ
    assert list(renewed(cache)) == KEYS[:KEYS_PER_READ], "those first that came first to the hot values"


def test_it_ends_when_there_is_no_room(version: Database) -> None:
    cache = hot(KEYS, bytes_max=100 << 10)
    assert 0 < asyncio.run(read_ahead(cache, b"p:", version, lambda: 0.0)) < KEYS_PER_TURN
    assert 0 < len(renewed(cache)) < KEYS_PER_TURN


def test_readers_go_on_meanwhile_and_a_database_that_is_closed_ends_it(version: Database) -> None:
    async def closed_meanwhile() -> int:
        reading = asyncio.ensure_future(read_ahead(hot(KEYS), b"p:", version, lambda: 0.0))
        await asyncio.sleep(0)  # the first keys are being read
        assert version.get(b"") is None
        version.close()
        return await reading

    assert asyncio.run(closed_meanwhile()) <= KEYS_PER_READ
