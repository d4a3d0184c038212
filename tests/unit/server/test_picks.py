from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from pipeline.format.keys import Kind, element_head
from pipeline.format.slots import key_slot
from pipeline.format.values import ValueType, encode_big
from server.storage import picks as module
from server.storage.big import BigCollection
from server.storage.live import LiveStore
from server.storage.picks import STEP_MIN, Picks
from server.storage.rocks import BlockCache, Database
from server.turns import ended

KEY = b"big"
HEAD = element_head(Kind.HASH_FIELD, KEY, 1)
FIELDS = [b"f%05d" % index for index in range(4_000)]
DRAWS = 4_000


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStore]:
    database = Database.open_live(tmp_path_factory.mktemp("picks") / "db", BlockCache(1 << 20), 1 << 20)
    store = LiveStore(database)
    for field in FIELDS:
        store.put(HEAD + field, b"v" + field)
    store.commit()
    yield store
    database.close()


def collection(store: LiveStore, count: int) -> BigCollection:
    raw = encode_big(ValueType.HASH, 1, count)
    return BigCollection(store, lambda _: None, KEY, key_slot(KEY), raw)


def walked(picks: Picks, big: BigCollection, places: frozenset[int]) -> dict[int, tuple[bytes, bytes]]:
    found: dict[int, tuple[bytes, bytes]] = {}

    async def walk() -> bytes:
        found.update(await picks.walked(big, places))
        return b""

    ended(walk())
    return found


def spread(picks: Picks, big: BigCollection, fields: list[bytes]) -> float:
    """How unevenly ten parts of the hash are drawn from: 1 would be a part that is never drawn, or twice as often as it should."""
    drawn = Counter(fields.index(entry[0]) * 10 // len(fields) for _ in range(DRAWS) if (entry := picks.draw(big)) is not None)
    assert sum(drawn.values()) == DRAWS
    return max(abs(drawn[part] * 10 / DRAWS - 1) for part in range(10))


def test_a_walk_finds_places_and_makes_draws_possible(store: LiveStore) -> None:
    picks, big = Picks(Random(1)), collection(store, len(FIELDS))
    assert not picks.ready(big)
    assert walked(picks, big, frozenset({0, 17, 3_999})) == {place: (FIELDS[place], b"v" + FIELDS[place]) for place in (0, 17, 3_999)}
    assert picks.ready(big)
    assert not picks.ready(collection(store, 2 * len(FIELDS)))
    assert not picks.ready(collection(store, len(FIELDS) // 2))


def test_draws_are_even_before_and_after_changes(store: LiveStore) -> None:
    picks, big = Picks(Random(2)), collection(store, len(FIELDS))
    walked(picks, big, frozenset())
    assert spread(picks, big, FIELDS) < 0.2
    going, coming = FIELDS[:1_000], [b"f02%03d+" % index for index in range(1_000)]  # all of them between two old marks, or few
    for field in going:
        store.delete(HEAD + field)
    for field in coming:
        store.put(HEAD + field, b"v")
    store.commit()
    left = sorted({*FIELDS, *coming} - {*going})
    for _ in range(100):
        picks.draw(big)  # meets the stretches that grew, and cuts them
    assert spread(picks, collection(store, len(left)), left) < 0.2


def test_a_hash_that_is_gone_gives_no_draw(store: LiveStore) -> None:
    picks, big = Picks(Random(3)), collection(store, len(FIELDS))
    walked(picks, big, frozenset())
    for field in FIELDS:
        store.delete(HEAD + field)
    store.commit()
    assert picks.draw(big) is None


def test_marks_take_bounded_memory(store: LiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    picks, big = Picks(Random(4)), collection(store, len(FIELDS))
    monkeypatch.setattr(module, "MARK_BYTES_MAX", 100)
    walked(picks, big, frozenset())
    assert not picks.ready(big)
    monkeypatch.setattr(module, "MARK_BYTES_MAX", 5_000)
    walked(picks, big, frozenset())
    assert picks.ready(big)
    for index in range(20 * STEP_MIN):
        store.put(HEAD + b"g%05d" % index, b"v")
    drawn = [picks.draw(big) for _ in range(5_000) if picks.ready(big)]
    assert not picks.ready(big)  # cutting what grew made the marks too many, and they went
    assert drawn[-1] is None
