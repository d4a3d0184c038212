"""Internal keys: parsing is the inverse of encoding, and bytewise order is the documented order."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import FormatError
from pipeline.format.keys import (
    ELEMENT_KINDS,
    LOCAL_SLOT,
    InternalKey,
    Kind,
    element_head,
    local_key,
    marker_key,
    meta_key,
    parse_key,
    parse_sortable_score,
    slot_bounds,
    sortable_score,
)
from pipeline.format.slots import SLOT_COUNT, key_slot

SLOTS = st.integers(0, SLOT_COUNT - 1)
VERSIONS = st.integers(0, 2**64 - 1)
# Zero bytes, and what stands in for them, are where an escape goes wrong: make them frequent.
TEXTS = st.lists(st.sampled_from([b"\x00", b"\xff", b"\x00\xff", b"\x00\x00", b"a", b"b", b"\x01"])).map(b"".join) | st.binary()
SCORES = st.floats(allow_nan=False)
METAS = st.builds(InternalKey, SLOTS, st.just(Kind.META), TEXTS, st.just(0), st.just(b""))
FIELDS = st.builds(InternalKey, SLOTS, st.sampled_from([Kind.HASH_FIELD, Kind.ZSET_MEMBER]), TEXTS, VERSIONS, TEXTS)
RANKS = st.builds(
    InternalKey,
    SLOTS,
    st.just(Kind.ZSET_RANK),
    TEXTS,
    VERSIONS,
    st.tuples(SCORES, TEXTS).map(lambda rank: sortable_score(rank[0]) + rank[1]),
)
MARKERS = st.builds(InternalKey, SLOTS, st.just(Kind.MARKER), st.just(b""), st.just(0), TEXTS)
LOCALS = st.builds(InternalKey, st.just(LOCAL_SLOT), st.just(Kind.LOCAL), st.just(b""), st.just(0), TEXTS)
KEYS = METAS | FIELDS | RANKS | MARKERS | LOCALS


def documented_order(key: InternalKey) -> tuple[int, int, bytes, int, bytes]:
    return key.slot, key.kind, key.user_key, key.version, key.detail


@given(KEYS)
def test_parse_is_the_inverse_of_encode(key: InternalKey) -> None:
    assert parse_key(key.encode()) == key


@given(st.lists(KEYS, min_size=2))
def test_bytewise_order_is_the_documented_order(keys: list[InternalKey]) -> None:
    assert sorted(keys, key=InternalKey.encode) == sorted(keys, key=documented_order)


@given(SLOTS, TEXTS, TEXTS)
def test_elements_are_ordered_by_user_key_whatever_follows(slot: int, one: bytes, other: bytes) -> None:
    one_head = element_head(Kind.HASH_FIELD, one, 2**64 - 1, slot)
    other_head = element_head(Kind.HASH_FIELD, other, 0, slot)
    if one < other:
        assert one_head + b"\xff" < other_head


@given(st.binary())
def test_whatever_parses_encodes_to_the_same_bytes_and_the_rest_is_a_format_error(raw: bytes) -> None:
    try:
        key = parse_key(raw)
    except FormatError:
        return
    assert key.encode() == raw


@given(SLOTS, st.sampled_from(sorted(ELEMENT_KINDS)), st.binary())
def test_broken_elements_are_format_errors(slot: int, kind: Kind, tail: bytes) -> None:
    raw = slot.to_bytes(2, "big") + bytes([kind]) + tail
    try:
        key = parse_key(raw)
    except FormatError:
        return
    assert key.encode() == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x00\x01", "shorter"),
        (b"\x00\x01\x05key", "unknown kind 0x05"),
        (b"\x40\x00\x01key", "slot 16384"),
        (b"\xff\xff\x01key", "slot 65535"),
        (b"\x00\x01\xffname", "slot 1"),
        (b"\x00\x01\x02key", "ends before its version"),
        (b"\x00\x01\x02key\x00\x00\x00", "ends before its version"),
        (b"\x00\x01\x02k\x00y\x00\x00" + bytes(8), "unescaped"),
        (b"\x00\x01\x04key\x00\x00" + bytes(15), "ends before its score"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(raw: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_key(raw)


def test_builders_agree_with_the_parser() -> None:
    assert parse_key(meta_key(b"{tag}x")) == InternalKey(key_slot(b"tag"), Kind.META, b"{tag}x", 0, b"")
    assert parse_key(marker_key(7, b"file")) == InternalKey(7, Kind.MARKER, b"", 0, b"file")
    assert parse_key(local_key(b"epoch")) == InternalKey(LOCAL_SLOT, Kind.LOCAL, b"", 0, b"epoch")
    assert parse_key(element_head(Kind.HASH_FIELD, b"k\x00", 3) + b"f").user_key == b"k\x00"


def test_only_element_kinds_have_element_heads() -> None:
    with pytest.raises(ValueError, match="no elements"):
        element_head(Kind.META, b"key", 1)


@given(KEYS, SLOTS, SLOTS)
def test_slot_bounds_hold_exactly_their_slots(key: InternalKey, one: int, other: int) -> None:
    first, last = sorted((one, other))
    low, high = slot_bounds(first, last)
    assert (low <= key.encode() < high) == (first <= key.slot <= last)


@given(SCORES)
def test_score_survives(score: float) -> None:
    assert parse_sortable_score(sortable_score(score)) == score


@given(st.lists(SCORES | st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324, -5e-324])))
def test_order_of_score_bytes_is_order_of_scores(scores: list[float]) -> None:
    for before, after in pairwise(sorted(scores)):
        assert (sortable_score(before) < sortable_score(after)) == (before < after)
        assert (sortable_score(before) == sortable_score(after)) == (before == after)


def test_nan_is_no_score() -> None:
    with pytest.raises(ValueError, match="NaN"):
        sortable_score(math.nan)
