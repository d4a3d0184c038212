from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.keys import element_head, local_key, marker_key, meta_key
from pipeline.format.slots import key_slot
from pipeline.format.values import ValueType, encode_big, encode_hash, encode_string, head
from server.storage import sweep
from server.storage.datasets import DatasetIndex
from server.storage.engine import Engine
from server.storage.heads import ELEMENTS_OF, first_head, head_at, heads_after, heads_of, is_named
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.rocks import BlockCache, Database
from server.storage.sweep import Sweep

NOW_MS = 1_000_000
OTHERS = [(local_key(b"note"), b"kept"), (marker_key(5, b"file"), b"")]

KEYS = st.sampled_from([b"a", b"\x00", b"a\x00b", b"a\xff", b"{a}b", b"", b"z" * 40])
TYPES = st.sampled_from([ValueType.HASH, ValueType.ZSET])


@dataclass(frozen=True)
class Elements:
    """All elements of a collection, of whatever version."""

    key: bytes
    type: ValueType
    version: int
    count: int

    @property
    def entries(self) -> list[tuple[bytes, bytes]]:
        heads = [element_head(kind, self.key, self.version) for kind in ELEMENTS_OF[self.type]]
        return [(head + b"%08d" % number, b"v") for head in heads for number in range(self.count)]


ELEMENTS = st.builds(Elements, KEYS, TYPES, st.integers(1, 4), st.integers(1, 9))
METAS = st.one_of(
    st.builds(lambda type_, version: encode_big(type_, version, 1), TYPES, st.integers(1, 4)),
    st.builds(lambda version: encode_big(ValueType.HASH, version, 1, NOW_MS - 1), st.integers(1, 4)),  # expired, and still there
    st.just(encode_string(b"overwritten")),
    st.just(encode_hash([(b"f", b"v")])),
    st.just(head(ValueType.HASH, flags=0x80)),  # by newer software
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database.open_live(tmp_path_factory.mktemp("live") / "db", BlockCache(1 << 20), 1 << 20)
    yield opened
    opened.close()


def engine_on(database: Database, entries: list[tuple[bytes, bytes]]) -> Engine:
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    database.write(entries)
    return Engine(LiveStore(database), DatasetIndex(), lambda: NOW_MS, HotCache(1 << 20))


def step_to_the_end(one: Sweep) -> None:
    rounds = one.rounds + 1
    while one.rounds < rounds or one.backlog:
        assert one.step() > 0


@given(
    stored=st.lists(ELEMENTS, max_size=12),
    metas=st.dictionaries(KEYS, METAS),
    building=st.sets(st.tuples(KEYS, st.integers(1, 4)), max_size=3),
    hints=st.lists(st.tuples(KEYS, TYPES, st.integers(1, 4)), max_size=4),
    at_once=st.integers(1, 12),
)
def test_what_nothing_names_goes_and_everything_else_stays(
    database: Database,
    stored: list[Elements],
    metas: dict[bytes, bytes],
    building: set[tuple[bytes, int]],
    hints: list[tuple[bytes, ValueType, int]],
    at_once: int,
) -> None:
    engine = engine_on(database, [entry for one in stored for entry in one.entries] + OTHERS)
    for key, raw in metas.items():
        engine.write(key, key_slot(key), raw)
    engine.live.commit()
    engine.constructing |= building
    engine.abandoned.extend((key, key_slot(key), encode_big(type_, version, 1)) for key, type_, version in hints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "ELEMENTS_PER_STEP_MAX", at_once)
        one = Sweep(engine)
        step_to_the_end(one)

    def stays(elements: Elements) -> bool:
        raw = metas.get(elements.key)
        if (elements.key, elements.version) in building or (raw is not None and raw[1] == 0x80):
            return True
        return raw is not None and raw[0] == elements.type and bool(raw[1] & 0x04) and is_version(raw, elements.version)

    expected = dict(OTHERS) | {meta_key(key): raw for key, raw in metas.items()}
    for elements in stored:
        expected |= dict(elements.entries) if stays(elements) else {}
    assert dict(database.entries_from(b"")) == expected
    gone = {(one.key, one.type, one.version) for one in stored if not stays(one)}
    assert one.collections == len(gone)


def is_version(raw: bytes, version: int) -> bool:
    return raw[-16:-8] == version.to_bytes(8, "little")


def test_a_large_collection_goes_as_a_range(database: Database) -> None:
    big = Elements(b"big", ValueType.ZSET, 1, 5_000)
    beside = Elements(b"big", ValueType.ZSET, 2, 3)
    engine = engine_on(database, big.entries + beside.entries)
    slot = key_slot(b"big")
    engine.write(b"big", slot, encode_big(ValueType.ZSET, 2, 3))
    engine.live.commit()
    engine.abandoned.append((b"big", slot, encode_big(ValueType.ZSET, 1, 5_000)))
    one = Sweep(engine)
    one.step()
    one.step()
    assert one.backlog == 0
    assert one.elements == 2 * sweep.ELEMENTS_PER_STEP_MAX
    assert [key for key, _ in database.entries_from(b"")] == sorted([meta_key(b"big"), *(key for key, _ in beside.entries)])


def test_a_removal_that_was_not_written_is_not_swept(database: Database) -> None:
    elements = Elements(b"k", ValueType.HASH, 1, 3)
    raw = encode_big(ValueType.HASH, 1, 3)
    engine = engine_on(database, [*elements.entries, (meta_key(b"k"), raw)])
    assert engine.delete(b"k", key_slot(b"k"))
    engine.live.discard()  # as after a batch that could not be written
    step_to_the_end(Sweep(engine))
    assert len(list(database.entries_from(b""))) == 4


def test_what_is_under_construction_is_spared_until_it_ends(database: Database) -> None:
    engine = engine_on(database, [])
    one = Sweep(engine)
    with engine.construction(b"k") as version:
        engine.live.write_early(Elements(b"k", ValueType.HASH, version, 3).entries)
        step_to_the_end(one)
        assert len(list(database.entries_from(b""))) == 3
    step_to_the_end(one)
    assert not list(database.entries_from(b""))


@given(key=KEYS, kind=TYPES, version=st.integers(0, (1 << 64) - 1), detail=st.binary(min_size=8, max_size=12))
def test_the_head_of_an_element_is_what_its_meta_value_names(key: bytes, kind: ValueType, version: int, detail: bytes) -> None:
    raw = encode_big(kind, version, 1)
    for named in heads_of(key, key_slot(key), raw):
        assert head_at(named.raw + detail) == named
        assert is_named(named, raw)
        assert named.raw <= named.raw + detail < named.end
        assert not is_named(named, encode_big(kind, version ^ 1, 1))
        assert not is_named(named, None)


def test_other_keys_are_leapt_over() -> None:
    assert heads_after(meta_key(b"a", 7)) == first_head(7)
    assert heads_after(marker_key(7, b"file")) == first_head(8)
    assert heads_after(marker_key(16_383, b"file")) is None
    assert heads_after(local_key(b"note")) is None
    assert head_at(meta_key(b"a", 7)) is None
    assert heads_of(b"a", 7, encode_string(b"x")) == []
