"""The content digest: equal for equal entries however they are batched, different for anything else."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.format.digest import DELETED, ContentDigest

ENTRIES = st.lists(st.tuples(st.binary(max_size=12), st.none() | st.binary(max_size=12)), max_size=12)
Entries = list[tuple[bytes, bytes | None]]


def digest_of(*batches: Entries) -> str:
    digest = ContentDigest()
    for batch in batches:
        digest.update([key for key, _ in batch], [value for _, value in batch])
    return digest.hexdigest()


@given(ENTRIES, st.integers(0, 12))
def test_batches_do_not_matter(entries: Entries, cut: int) -> None:
    assert digest_of(entries) == digest_of(entries[:cut], entries[cut:])


@given(ENTRIES, ENTRIES)
def test_other_entries_have_another_digest(one: Entries, other: Entries) -> None:
    assume(one != other)
    assert digest_of(one) != digest_of(other)


@given(ENTRIES)
def test_buffers_are_the_grammar_of_the_document(entries: Entries) -> None:
    lengths = b"".join(struct.pack("<II", len(key), DELETED if value is None else len(value)) for key, value in entries)
    keys = b"".join(key for key, _ in entries)
    values = b"".join(value or b"" for _, value in entries)
    expected = hashlib.sha256(b"".join(hashlib.sha256(stream).digest() for stream in (lengths, keys, values))).hexdigest()
    fed = ContentDigest()
    fed.update_buffers(lengths, keys, values)
    assert digest_of(entries) == fed.hexdigest() == expected


def test_a_delete_is_not_an_empty_value() -> None:
    assert digest_of([(b"k", None)]) != digest_of([(b"k", b"")])
