"""Hot values are what a read would find, whatever was written, replaced or pushed out."""

from __future__ import annotations

import random
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from server.storage import hotcache
from server.storage.hotcache import ABSENT, DOUBTS_MAX, ENTRY_OVERHEAD_BYTES, FETCHES_PER_LOOK, PREPARED_SHARE, HotCache

KEYS = [b"%b:%d" % (name, number) for name in (b"a", b"b") for number in range(6)]
ROOM = 8 * (ENTRY_OVERHEAD_BYTES + 8)  # for fewer keys than there are

deeds = st.one_of(
    st.tuples(st.sampled_from(["read", "write"]), st.sampled_from(KEYS)),
    st.tuples(st.sampled_from(["replace", "prepare", "renew"]), st.sets(st.sampled_from(KEYS))),
    st.tuples(st.just("clear"), st.none()),
)


def read(cache: HotCache, key: bytes, value: bytes) -> bytes:
    """As the engine does, with `value` in the database."""
    known = key in cache
    raw = cache.young.get(key) or cache.from_old(key)
    assert known == (raw is not None)
    if raw is None:
        cache.put(key, value)
    return raw or value


@given(done=st.lists(deeds, max_size=60))
@patch.object(hotcache, "PREPARED_SHARE", 2)  # for as many keys as matter here
def test_nothing_stale_is_read(done: list[tuple[str, bytes | set[bytes] | None]]) -> None:
    cache, values = HotCache(ROOM), dict.fromkeys(KEYS, b"0")
    coming: dict[bytes, bytes] = {}
    for number, (deed, what) in enumerate(done, 1):
        match what:
            case set() if deed == "prepare":
                cache.forget_prepared()
                coming = {key: b"%d" % number for key in what if cache.prepare(key, b"%d" % number)}
            case set() if deed == "renew":
                values |= dict.fromkeys(what, b"%d" % number) | coming
                cache.doubt(frozenset(what | coming.keys()).__contains__)
                cache.renew()
                coming = {}
            case bytes() if deed == "read":
                assert read(cache, what, values[what]) == values[what]
            case bytes():
                values[what] = b"%d" % number
                cache.drop(what)
            case set():
                replaced = frozenset(what)
                values |= dict.fromkeys(replaced, b"%d" % number)
                cache.doubt(replaced.__contains__)
            case _:
                cache.clear()
    assert {key: read(cache, key, values[key]) for key in KEYS} == values


def test_a_replacement_leaves_what_it_does_not_touch_and_is_read_again() -> None:
    cache = HotCache(1 << 20)
    for key in KEYS:
        cache.put(key, b"old")
    for mine in (b"a:0", b"a:1", b"a:2"):
        cache.doubt(mine.__eq__)
        assert [key for key in KEYS if key not in cache] == [mine]
        for key in KEYS:
            read(cache, key, b"new")
    assert [key for key in KEYS if cache.young[key] == b"new"] == [b"a:0", b"a:1", b"a:2"]


def test_replacements_one_after_the_other_leave_what_was_not_read_between_them() -> None:
    cache = HotCache(1 << 20)
    for key in KEYS:
        cache.put(key, b"old")
    cache.doubt(b"a:0".__eq__)
    read(cache, b"b:0", b"new")
    cache.doubt(b"a:1".__eq__)
    assert [key for key in KEYS if key not in cache] == [b"a:0", b"a:1"]
    for _ in range(2 * DOUBTS_MAX):
        cache.doubt(b"c:0".__eq__)
    assert not [key for key in KEYS if key in cache], "no list of doubts grows for ever"


@given(steps=st.lists(st.tuples(st.sampled_from(["put", "drop", "clear", "find"]), st.integers(0, 30), st.integers(0, 300))))
def test_hot_values_are_the_last_ones_put_and_stay_within_their_bytes(steps: list[tuple[str, int, int]]) -> None:
    cache = HotCache(4_096)
    model: dict[bytes, bytes] = {}
    for step, number, size in steps:
        key = b"%d" % number
        match step:
            case "put":
                model[key] = b"x" * size
                assert cache.put(key, model[key])
            case "drop":
                model.pop(key, None)
                cache.drop(key)
            case "clear":
                model.clear()
                cache.clear()
            case _:
                found = cache.young.get(key)
                if found is None:
                    found = cache.from_old(key)
                assert found is None or found == model[key]
        assert all(model.get(key) == raw for key, raw in cache.young.items())
        assert sum(len(key) + size_of(model[key]) for key in model if key in cache) <= 4_096


def size_of(raw: bytes) -> int:
    return len(raw) + ENTRY_OVERHEAD_BYTES


def test_hot_values_that_fit_all_stay() -> None:
    keys = [b"%03d" % number for number in range(100)]
    cache = HotCache(len(keys) * (3 + size_of(b"value")))
    order = random.Random(1)
    for key in keys:
        cache.put(key, b"value")
    for key in order.choices(keys, k=2_000):
        assert cache.young.get(key) or cache.from_old(key)
        cache.drop(b"another")


def test_a_value_that_is_read_again_and_again_outlives_many_that_are_read_once() -> None:
    cache = HotCache(50 * (4 + size_of(b"value")))
    cache.put(b"hot!", b"value")
    for number in range(1_000):
        cache.put(b"%04d" % number, b"value")
        if not number % 20:
            assert cache.young.get(b"hot!") or cache.from_old(b"hot!"), number
    assert len(cache) == 50


def test_what_was_just_read_is_kept_while_there_is_room_and_later_by_chance() -> None:
    cache = HotCache(1 << 20)
    keys = [b"%d" % number for number in range(200)]
    for number, key in enumerate(keys):
        assert cache.admits(0, 0) or number > 90
        cache.put(key, bytes(10 << 10))
    assert 0 < sum(cache.admits(0, 0) for _ in range(1_000)) < 1_000
    cache.doubt(lambda key: key in keys)
    assert all(cache.admits(0, 0) for _ in range(100)), "what is in doubt is room"


def test_less_is_kept_while_next_to_nothing_is_asked_for_again() -> None:
    cache = HotCache(0)
    kept = []
    reads = fetches = 0
    for hits in (FETCHES_PER_LOOK, 0, FETCHES_PER_LOOK):
        fetches += FETCHES_PER_LOOK
        reads += FETCHES_PER_LOOK + hits
        kept.append(sum(cache.admits(reads, fetches) for _ in range(10_000)))
    often, seldom, again = kept
    assert 0 < seldom < often / 4
    assert seldom < again / 4


@given(st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)))
def test_what_is_recalled_is_all_that_is_here(old: set[bytes], doubted: set[bytes], young: set[bytes]) -> None:
    cache = HotCache(1 << 20)
    for key in old:
        cache.put(key, b"value")
    if doubted:
        cache.doubt(lambda key: key in doubted)
    for key in young:
        cache.put(key, b"value")
    here = [key in cache for key in KEYS]
    found = [cache.young.get(key) for key in KEYS]
    left = cache.recall(found, KEYS)
    assert left == [place for place, known in enumerate(here) if not known]
    assert found == [b"value" if known else None for known in here]
    assert [cache.young.get(key) for key in KEYS] == found


def test_values_that_would_push_out_too_much_are_not_kept() -> None:
    cache = HotCache(1 << 20)
    assert cache.put(b"a", ABSENT)
    assert not cache.put(b"b", b"x" * (64 << 10))
    assert b"a" in cache
    assert b"b" not in cache
    assert not HotCache(0).put(b"a", b"1")


def test_prepared_values_are_not_read_before_they_are_renewed_and_have_their_room_by_then() -> None:
    cache = HotCache(80 * (4 + size_of(b"value")))
    for number in range(80):
        cache.put(b"a%03d" % number, b"value")
    for number in range(80):
        assert cache.prepare(b"a%03d" % number, b"other") == (number < 80 // PREPARED_SHARE)
    assert len(cache) == 80 - 80 // PREPARED_SHARE
    assert {cache.from_old(key) or cache.young[key] for key in cache.hot_keys(1_000)} == {b"value"}
    cache.doubt(lambda key: key.startswith(b"a"))
    cache.renew()
    assert cache.young == {b"a%03d" % number: b"other" for number in range(80 // PREPARED_SHARE)}
    assert [key for number in range(80) if (key := b"a%03d" % number) in cache] == list(cache.young)


def test_prepared_values_that_are_forgotten_leave_their_room() -> None:
    cache = HotCache(80 * (4 + size_of(b"value")))
    for name in (b"a", b"b"):
        assert cache.prepare(name * 4, b"value")
        cache.forget_prepared()
    for number in range(80):
        cache.put(b"a%03d" % number, b"value")
    assert len(cache) == 80
    cache.doubt(b"a000".__eq__)
    cache.renew()
    assert b"bbbb" not in cache


def test_large_values_are_not_prepared_and_end_nothing() -> None:
    cache = HotCache(1 << 20)
    assert cache.prepare(b"a", b"x" * (64 << 10))
    assert cache.prepare(b"b", b"x")
    cache.renew()
    assert cache.young == {b"b": b"x"}
    assert not HotCache(0).prepare(b"a", b"1")
