"""Slots against values that Redis itself gives, and the arithmetic of ranges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges, hash_tag, key_slot, key_slots, slot_set, slots_without

SLOTS = st.integers(0, SLOT_COUNT - 1)
RANGES = st.tuples(SLOTS, SLOTS).map(lambda ends: SlotRange(first=min(ends), last=max(ends)))


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"", 0),
        (b"123456789", 0x31C3),  # the check value of CRC16/XMODEM, below 16384 already
        (b"foo", 12182),
        (b"bar", 5061),
        (b"hello", 866),
        (b"somekey", 11058),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        (b"user1000", 3443),
        (b"foo{bar}{zap}", 5061),
    ],
)
def test_known_slots(key: bytes, slot: int) -> None:
    assert key_slot(key) == slot


@given(st.lists(st.text("a{}").map(str.encode)))
def test_slots_of_many_are_those_of_each(keys: list[bytes]) -> None:
    assert key_slots(keys) == [key_slot(key) for key in keys]


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{}{bar}", b"foo{}{bar}"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo}bar{zap", b"foo}bar{zap"),
        (b"}{tag}", b"tag"),
        (b"{}tag", b"{}tag"),
        (b"{", b"{"),
        (b"plain", b"plain"),
    ],
)
def test_hash_tags_as_the_cluster_specification_words_them(key: bytes, tag: bytes) -> None:
    assert hash_tag(key) == tag


@given(st.binary())
def test_slot_is_in_range_and_that_of_the_tag(key: bytes) -> None:
    assert 0 <= key_slot(key) < SLOT_COUNT
    if b"{" not in hash_tag(key):
        assert key_slot(hash_tag(key)) == key_slot(key)


@given(st.integers(1, 600))
def test_even_ranges_cover_everything_once(count: int) -> None:
    ranges = even_ranges(count)
    sizes = [one.last - one.first + 1 for one in ranges]
    assert len(ranges) == count
    assert sum(sizes) == SLOT_COUNT
    assert max(sizes) - min(sizes) <= 1
    assert (ranges[0].first, ranges[-1].last) == (0, SLOT_COUNT - 1)
    assert all(before.last + 1 == after.first for before, after in pairwise(ranges))


@pytest.mark.parametrize("count", [0, -1, SLOT_COUNT + 1])
def test_even_ranges_refuse_impossible_counts(count: int) -> None:
    with pytest.raises(ValueError, match="can't cut"):
        even_ranges(count)


@given(RANGES, RANGES)
def test_range_algebra_is_that_of_sets(one: SlotRange, other: SlotRange) -> None:
    left, right = slot_set([one]), slot_set([other])
    assert one.overlaps(other) == bool(left & right)
    assert one.covers(other) == (right <= left)
    assert slot_set([one, other]) == left | right


@given(RANGES, SLOTS)
def test_membership(one: SlotRange, slot: int) -> None:
    assert (slot in one) == (one.first <= slot <= one.last)


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (1, 0), (0, SLOT_COUNT), (SLOT_COUNT, SLOT_COUNT)])
def test_impossible_ranges_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="slot range"):
        SlotRange(first=first, last=last)


@given(st.lists(RANGES, max_size=6))
def test_the_rest_is_all_other_slots_in_as_few_ranges_as_there_can_be(ranges: list[SlotRange]) -> None:
    rest = slots_without(ranges)
    assert slot_set(rest) == frozenset(range(SLOT_COUNT)) - slot_set(ranges)
    assert all(before.last + 1 < after.first for before, after in pairwise(rest))
