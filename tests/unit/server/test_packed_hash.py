from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import FormatError
from pipeline.format.values import bulk, encode_hash, encode_string
from server.storage import packed_hash
from server.storage.packed import FieldFinder

TRICKY = st.one_of(st.binary(max_size=6), st.sampled_from([b"a", b"$1\r\na\r\n", b"\r\n$1\r\na\r\n$1\r\na\r\n", b"x" * 300]))
HASHES = st.dictionaries(TRICKY, TRICKY, min_size=1, max_size=12)
EXPIRY = st.one_of(st.none(), st.integers(0, (1 << 63) - 1))
WIDE = {b"f%d" % index: b"v" * (index % 70) for index in range(500)}


def encoded(pairs: dict[bytes, bytes], expiry: int | None = None) -> bytes:
    return encode_hash(list(pairs.items()), expiry)


@given(pairs=HASHES, expiry=EXPIRY, changes=st.dictionaries(TRICKY, TRICKY, max_size=6))
def test_changed_in_place_is_what_would_be_encoded_anew(pairs: dict[bytes, bytes], expiry: int | None, changes: dict[bytes, bytes]) -> None:
    raw, created = packed_hash.updated(encoded(pairs, expiry), FieldFinder(), changes)
    assert raw == encoded(pairs | changes, expiry)
    assert created == len(changes.keys() - pairs.keys())


@given(pairs=HASHES, expiry=EXPIRY, fields=st.lists(TRICKY, max_size=6), every=st.booleans())
def test_without_some_fields_is_what_would_be_encoded_anew(
    pairs: dict[bytes, bytes], expiry: int | None, fields: list[bytes], every: bool
) -> None:
    going = list(pairs) if every else [*fields, *list(pairs)[1::2]]
    left = {field: value for field, value in pairs.items() if field not in going}
    raw, removals = packed_hash.without(encoded(pairs, expiry), FieldFinder(), going)
    assert raw == (encoded(left, expiry) if left else None)
    assert removals == len(pairs) - len(left)


@given(pairs=HASHES, expiry=EXPIRY)
def test_parts_are_slices_of_the_reply(pairs: dict[bytes, bytes], expiry: int | None) -> None:
    raw = encoded(pairs, expiry)
    assert packed_hash.pairs_of(raw) == pairs
    assert packed_hash.field_bulks(raw) == [bulk(field) for field in pairs]
    assert packed_hash.value_bulks(raw) == [bulk(value) for value in pairs.values()]
    for index, (field, value) in enumerate(pairs.items()):
        pair = packed_hash.pair_bulks(raw, index)
        assert pair == bulk(field) + bulk(value)
        assert packed_hash.first_bulk(pair) == bulk(field)


@pytest.mark.parametrize("changes", [len(WIDE), len(WIDE) + 1])
def test_few_changes_are_spliced_and_many_encoded_with_one_result(changes: int) -> None:
    wanted = dict.fromkeys((b"f%d" % index for index in range(490, 490 + changes)), b"new value")
    assert packed_hash.updated(encoded(WIDE), FieldFinder(), wanted) == (encoded(WIDE | wanted), changes - 10)


def test_a_string_is_no_hash() -> None:
    with pytest.raises(FormatError, match="packed hash"):
        packed_hash.pairs_of(encode_string(b"x"))
