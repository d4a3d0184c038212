from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import FormatError, NodeError, PrefixOverlapError
from pipeline.format.keys import meta_key
from pipeline.format.slots import key_slot
from pipeline.format.values import ValueType, encode_compressed, encode_string, head
from server.resp.replies import ReplyError
from server.storage.datasets import Dataset, DatasetIndex, OpenVersion, nothing
from server.storage.engine import Engine
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.livekeys import live_keys_under
from server.storage.lookup import Clock
from server.storage.pointers import DatasetPointer
from server.storage.rocks import BlockCache, Database

NOW_MS = 1_000_000
CACHE = BlockCache(1 << 20)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Database]:
    database = Database.open_live(tmp_path / "live", CACHE, 1 << 20)
    yield database
    database.close()


def engine_of(live: Database, index: DatasetIndex, clock: Clock) -> Engine:
    return Engine(LiveStore(live), index, clock, HotCache(1 << 20))


def dataset(name: str, prefix: str) -> Dataset:
    return Dataset(DatasetPointer(dataset=name, prefix=prefix, active="2026-11-22"), nothing)


@given(prefixes=st.sets(st.text("ab{}", min_size=1, max_size=4)), keys=st.lists(st.text("ab{}x", max_size=6)))
def test_the_owner_of_a_key_is_the_one_whose_prefix_it_has(prefixes: set[str], keys: list[str]) -> None:
    index = DatasetIndex()
    taken: list[str] = []
    for prefix in sorted(prefixes):
        overlaps = any(prefix.startswith(other) or other.startswith(prefix) for other in taken)
        if overlaps:
            with pytest.raises(PrefixOverlapError):
                index.add(dataset(f"d-{prefix}", prefix))
        else:
            index.add(dataset(f"d-{prefix}", prefix))
            taken.append(prefix)
    for key in keys:
        owner = index.owner(key.encode())
        assert (owner and owner.pointer.prefix) == next((prefix for prefix in taken if key.startswith(prefix)), None)


def test_expiry_is_exact(live: Database) -> None:
    now = [NOW_MS]
    engine = engine_of(live, DatasetIndex(), lambda: now[0])
    slot = key_slot(b"a")
    engine.write(b"a", slot, encode_string(b"x", NOW_MS + 1))
    assert engine.read(b"a", slot) is not None
    now[0] = NOW_MS + 1
    assert engine.read(b"a", slot) is None
    assert engine.read_many([b"a", b"a"]) == [None, None]
    assert not engine.delete(b"a", slot)


def test_flags_of_newer_software_are_refused(live: Database) -> None:
    engine = engine_of(live, DatasetIndex(), lambda: NOW_MS)
    slot = key_slot(b"a")
    for raw in (head(ValueType.STRING, flags=0x08), head(ValueType.HASH, flags=0x80)):
        engine.write(b"a", slot, raw)
        with pytest.raises(FormatError, match="flags"):
            engine.read(b"a", slot)


def test_a_compressed_string_is_read_as_it_was(live: Database) -> None:
    engine = engine_of(live, DatasetIndex(), lambda: NOW_MS)
    slot, text = key_slot(b"a"), b"long " * 1000
    packed = encode_compressed(text, NOW_MS + 1)
    assert packed is not None
    engine.write(b"a", slot, packed)
    assert engine.read(b"a", slot) == encode_string(text, NOW_MS + 1)
    assert engine.read_many([b"a", b"b"]) == [encode_string(text, NOW_MS + 1), None]


LIVE, VERSION, GUARDED = (tuple(b"%b:%d" % (name, number) for number in range(40)) for name in (b"live", b"bulk", b"part"))
ABSENT_ONES = b"live:none", b"bulk:none", b"part:none"
ALL_KEYS = [*LIVE, *VERSION, *GUARDED, *ABSENT_ONES]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, DatasetIndex]]:
    """Live keys, keys of a version, and keys of a dataset that is read one by one."""
    database = Database.open_live(tmp_path_factory.mktemp("shard") / "live", CACHE, 1 << 20)
    for number, key in enumerate(key for key in ALL_KEYS if key not in ABSENT_ONES):
        packed = encode_compressed(key * 500) if number % 7 == 3 else None
        database.put(meta_key(key), packed or encode_string(key, NOW_MS if number % 5 == 0 else None))
    index = DatasetIndex()
    for name in ("bulk", "part"):
        index.add(dataset(name, f"{name}:"))
        index.by_name[name].get = database.get
    identity = VersionIdentity(dataset="bulk", version="2026-11-22", build_id="b", manifest_sha256="0" * 64, slots=(), keys=40, entries=40)
    index.by_name["bulk"].whole = OpenVersion(identity, database, (0, 0, 0))
    yield database, index
    database.close()


@given(
    hot=st.lists(st.sampled_from(ALL_KEYS), max_size=20),
    doubted=st.sampled_from(ALL_KEYS),
    young=st.lists(st.sampled_from(ALL_KEYS), max_size=5),
    keys=st.one_of(*(st.lists(st.sampled_from(some), min_size=1) for some in (ALL_KEYS, LIVE, VERSION, GUARDED))),
    admitted=st.booleans(),
)
def test_many_are_found_as_each_is_and_only_what_is_lacking_is_fetched(
    stored: tuple[Database, DatasetIndex], hot: list[bytes], doubted: bytes, young: list[bytes], keys: list[bytes], *, admitted: bool
) -> None:
    database, index = stored
    one_by_one, at_once = engine_of(database, index, lambda: NOW_MS), engine_of(database, index, lambda: NOW_MS)
    at_once.read_many(hot)
    at_once.cache.doubt(lambda key: key == doubted)
    at_once.read_many(young)
    before = at_once.reads, at_once.missing, at_once.fetches
    lacking = [key for key in keys if key not in at_once.cache]
    with patch.object(HotCache, "admits", return_value=admitted):
        assert at_once.read_many(keys) == [one_by_one.read(key, key_slot(key)) for key in keys]
    assert (at_once.reads - before[0], at_once.missing - before[1]) == (one_by_one.reads, one_by_one.missing)
    assert len({*lacking}) <= at_once.fetches - before[2] <= len(lacking)


def test_a_key_that_comes_again_and_again_is_recalled_once(stored: tuple[Database, DatasetIndex]) -> None:
    engine = engine_of(*stored, lambda: NOW_MS)
    engine.read_many([*LIVE, *GUARDED])
    engine.cache.doubt(lambda _: False)
    fetches = engine.fetches
    assert len({*engine.read_many([LIVE[1]] * 16)}) == len({*engine.read_many([GUARDED[1]] * 16)}) == 1
    assert engine.fetches == fetches
    engine.dataset_changed(None)
    engine.read_many([GUARDED[1]] * 16)
    assert engine.fetches == fetches + 1


def newer(key: bytes) -> bytes:
    return head(ValueType.STRING, flags=0x80) + key


@pytest.mark.parametrize("admitted", [True, False])
def test_what_is_fetched_ahead_is_what_a_read_finds_kept_or_not(live: Database, admitted: bool) -> None:
    index = DatasetIndex()
    refused = dataset("gone", "gone:")
    index.add(refused)
    refused.refuse("could not be opened")
    now = [NOW_MS]
    engine = engine_of(live, index, lambda: now[0])
    packed = encode_compressed(b"x" * 4_096)
    assert packed is not None
    rows = {b"a": encode_string(b"1"), b"b": encode_string(b"2"), b"packed": packed, b"ends": encode_string(b"3", NOW_MS + 1)}
    for key, raw in {**rows, b"newer": newer(b"newer")}.items():
        live.put(meta_key(key), raw)
    keys = [*rows, b"absent", b"newer", b"gone:1"]

    def read(key: bytes) -> bytes | None:
        return engine.read(key, key_slot(key))

    with patch.object(HotCache, "admits", return_value=admitted), patch.object(live, "_get", wraps=live._get) as get:
        engine.fetch_ahead(keys)
        assert get.call_count == 1
        assert [read(key) for key in (b"a", b"b", b"absent", b"ends")] == [rows[b"a"], rows[b"b"], None, rows[b"ends"]]
        assert (get.call_count, engine.fetches) == (1, 6)
        assert read(b"packed") == encode_string(b"x" * 4_096)
        assert engine.fetches == 7, "it is unpacked when it is asked for"
        with pytest.raises(FormatError, match="flags"):
            read(b"newer")
        with pytest.raises(ReplyError, match="could not be opened"):
            read(b"gone:1")
    engine.write(b"a", key_slot(b"a"), encode_string(b"new"))
    assert read(b"a") == encode_string(b"new")
    now[0] += 1
    assert engine.remove_expired(b"ends", key_slot(b"ends"))
    assert read(b"ends") is None
    live.put(meta_key(b"b"), encode_string(b"another"))
    engine.dataset_changed(None)
    assert read(b"b") == encode_string(b"another")


def test_what_was_fetched_ahead_is_forgotten(live: Database) -> None:
    engine = engine_of(live, DatasetIndex(), lambda: NOW_MS)
    with patch.object(HotCache, "admits", return_value=False):
        engine.fetch_ahead([b"a", b"b"])
        live.put(meta_key(b"a"), encode_string(b"1"))
        assert engine.read(b"a", key_slot(b"a")) is None
        engine.forget_ahead()
        assert engine.read(b"a", key_slot(b"a")) == encode_string(b"1")


@pytest.mark.parametrize("bad", [b"newer", b"gone:1"])
def test_one_that_can_not_be_read_does_not_have_the_others_fetched_twice(live: Database, bad: bytes) -> None:
    index = DatasetIndex()
    index.add(dataset("gone", "gone:"))
    index.by_name["gone"].refuse("could not be opened")
    engine = engine_of(live, index, lambda: NOW_MS)
    live.put(meta_key(b"newer"), newer(b"newer"))
    keys = [b"a", b"b", bad]
    with patch.object(HotCache, "admits", return_value=False):
        with pytest.raises((FormatError, ReplyError)):
            engine.values(keys, [key_slot(key) for key in keys])
        fetches = engine.fetches
        assert [engine.read(key, key_slot(key)) for key in keys[:2]] == [None, None]
        assert engine.fetches == fetches
        with pytest.raises((FormatError, ReplyError)):
            engine.read_many(keys)
        live.put(meta_key(b"a"), encode_string(b"1"))
        assert engine.read(b"a", key_slot(b"a")) == encode_string(b"1"), "nothing is kept beyond a run"


def test_a_dataset_that_can_not_be_read_says_which_and_why(live: Database) -> None:
    index = DatasetIndex()
    broken = dataset("plane", "plane_")
    index.add(broken)
    broken.refuse("could not be opened (gone)")
    engine = engine_of(live, index, lambda: NOW_MS)
    with pytest.raises(ReplyError, match=r"^LOADING dataset 'plane' .* 2026-11-22 could not be opened \(gone\)"):
        engine.read(b"plane_1", key_slot(b"plane_1"))


def test_keys_longer_than_the_limit_are_not_written(live: Database) -> None:
    engine = engine_of(live, DatasetIndex(), lambda: NOW_MS)
    with pytest.raises(ReplyError, match="longer"):
        engine.write(b"k" * 65_537, 0, encode_string(b"x"))


def test_live_keys_are_found_in_whatever_slot_they_are(live: Database) -> None:
    wanted = {b"p:%d" % number for number in range(300)}
    for key in wanted | {b"q%d" % number for number in range(300)} | {b"p", b"o:1"}:
        live.put(meta_key(key), encode_string(b"x"))
    live.put(meta_key(b"p:expired"), encode_string(b"x", NOW_MS))
    live.put(meta_key(b"{p}:1"), encode_string(b"x"))
    assert {key for key in live_keys_under(live, b"p:", NOW_MS) if key is not None} == wanted
    assert set(live_keys_under(live, b"{p}", NOW_MS)) == {b"{p}:1"}
    assert set(live_keys_under(live, b"none", NOW_MS)) <= {None}


def test_foreign_errors_name_the_directory(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="absent"):
        Database.open_version(tmp_path / "absent", CACHE)
