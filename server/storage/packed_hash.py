"""Packed hashes, changed and picked from in place: what a change does not touch is copied as it lies, never decoded.

Rules (grammar in pipeline/format/values.py):
- Every function gives the bytes that `encode_hash` would give for the changed pairs; the expiry stays.
- A new field goes to the end, a changed one stays where it is: the order is that of Redis' listpacks.
- Offsets count from the first bulk, so a new pair leaves them all as they are; a changed length moves those behind it by one addition, of
  the whole table as one number: no offset can carry into its neighbour while the bulks take less than 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from itertools import pairwise

from pipeline.format.errors import FormatError
from pipeline.format.values import (
    COUNT_BYTES,
    HEAD_BYTES,
    OFFSET_BYTES,
    HashValue,
    body_start,
    bulk,
    decode_value,
    encode_hash,
    expiry_ms,
)
from server.storage.packed import FieldFinder

_COUNT = struct.Struct("<I")
_U32 = _COUNT.unpack_from
_PAIR = struct.Struct("<II").unpack_from
_ONE = b"\x01\x00\x00\x00"


def pairs_of(raw: bytes) -> dict[bytes, bytes]:
    """All fields and values, decoded.

    Raises:
        FormatError: the value is broken.
    """
    value = decode_value(raw)
    if not isinstance(value, HashValue):
        raise FormatError(f"meta value {raw[:16]!r}... is no packed hash's")
    return dict(value.pairs)


def updated(raw: bytes, finder: FieldFinder, changes: Mapping[bytes, bytes]) -> tuple[bytes, int]:
    """The hash with some fields set, and how many of them are new.

    A change in place takes about 4 µs, decoding and encoding about as long per pair.
    """
    if len(changes) > 1 and len(changes) > _U32(raw, _count_at(raw))[0]:
        pairs = pairs_of(raw)
        before = len(pairs)
        pairs.update(changes)
        return encode_hash(list(pairs.items()), expiry_ms(raw)), len(pairs) - before
    created = 0
    for field, value in changes.items():
        index = finder.index(raw, field)
        created += index < 0
        raw = appended(raw, field, value) if index < 0 else replaced(raw, index, field, value)
    return raw, created


def without(raw: bytes, finder: FieldFinder, fields: Collection[bytes]) -> tuple[bytes | None, int]:
    """The hash without some fields, and how many of them there were; None if no field is left."""
    count: int = _U32(raw, _count_at(raw))[0]
    if len(fields) > count:
        going = frozenset(fields)
        left = [pair for pair in pairs_of(raw).items() if pair[0] not in going]
        return encode_hash(left, expiry_ms(raw)) if left else None, count - len(left)
    removals = 0
    for field in fields:
        index = finder.index(raw, field)
        if index < 0:
            continue
        removals += 1
        if removals == count:
            return None, removals
        raw = removed(raw, index)
    return raw, removals


def appended(raw: bytes, field: bytes, value: bytes) -> bytes:
    """The hash with one more pair at its end."""
    at = _count_at(raw)
    count: int = _U32(raw, at)[0]
    bulks = at + COUNT_BYTES + OFFSET_BYTES * (count + 1)
    pair = bulk(field) + bulk(value)
    end = _COUNT.pack(len(raw) - bulks + len(pair))
    return b"".join((raw[:at], _COUNT.pack(count + 1), raw[at + COUNT_BYTES : bulks], end, raw[bulks:], pair))


def replaced(raw: bytes, index: int, field: bytes, value: bytes) -> bytes:
    """The hash with another value of the field at an index."""
    at = _count_at(raw)
    table = at + COUNT_BYTES
    bulks = table + OFFSET_BYTES * (_U32(raw, at)[0] + 1)
    start, end = _PAIR(raw, table + OFFSET_BYTES * index)
    pair = bulk(field) + bulk(value)
    longer = len(pair) - (end - start)
    if not longer:
        return b"".join((raw[: bulks + start], pair, raw[bulks + end :]))
    behind = table + OFFSET_BYTES * (index + 1)
    return b"".join((raw[:behind], _moved(raw[behind:bulks], longer), raw[bulks : bulks + start], pair, raw[bulks + end :]))


def removed(raw: bytes, index: int) -> bytes:
    """The hash without the pair at an index; it must not be the only one."""
    at = _count_at(raw)
    count: int = _U32(raw, at)[0]
    table = at + COUNT_BYTES
    bulks = table + OFFSET_BYTES * (count + 1)
    start, end = _PAIR(raw, table + OFFSET_BYTES * index)
    behind = table + OFFSET_BYTES * (index + 1)
    offsets = _moved(raw[behind + OFFSET_BYTES : bulks], start - end)
    kept = raw[table:behind]  # the pair's own start becomes that of the next one
    return b"".join((raw[:at], _COUNT.pack(count - 1), kept, offsets, raw[bulks : bulks + start], raw[bulks + end :]))


def pair_bulks(raw: bytes, index: int) -> bytes:
    """Field and value at an index, as two bulks end to end."""
    table = _count_at(raw) + COUNT_BYTES
    bulks = table + OFFSET_BYTES * (_U32(raw, table - COUNT_BYTES)[0] + 1)
    start, end = _PAIR(raw, table + OFFSET_BYTES * index)
    return raw[bulks + start : bulks + end]


def field_bulks(raw: bytes) -> list[bytes]:
    """All fields as bulks, in their order."""
    return [raw[start:middle] for start, middle, _ in _borders(raw)]


def value_bulks(raw: bytes) -> list[bytes]:
    """All values as bulks, in the order of their fields."""
    return [raw[middle:end] for _, middle, end in _borders(raw)]


def first_bulk(pair: bytes) -> bytes:
    """The field of a pair of bulks, as a bulk."""
    return pair[: _bulk_end(pair, 0)]


def _borders(raw: bytes) -> list[tuple[int, int, int]]:
    """Where every pair starts, where its value does, and where it ends."""
    at = _count_at(raw)
    count: int = _U32(raw, at)[0]
    offsets = struct.unpack_from(f"<{count + 1}I", raw, at + COUNT_BYTES)
    bulks = at + COUNT_BYTES + OFFSET_BYTES * (count + 1)
    return [(bulks + start, _bulk_end(raw, bulks + start), bulks + end) for start, end in pairwise(offsets)]


def _bulk_end(raw: bytes, at: int) -> int:
    line = raw.index(b"\n", at)
    return line + 3 + int(raw[at + 1 : line - 1])


def _count_at(raw: bytes) -> int:
    return body_start(raw) if raw[1] else HEAD_BYTES


def _moved(offsets: bytes, by: int) -> bytes:
    """A part of the table, every offset of it larger by so much."""
    ones = int.from_bytes(_ONE * (len(offsets) // OFFSET_BYTES), "little")
    return (int.from_bytes(offsets, "little") + by * ones).to_bytes(len(offsets), "little")
