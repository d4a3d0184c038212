"""Packed meta values, read in place by their offset tables: what is sent is a slice of what is stored.

Rules (grammar in pipeline/format/values.py):
- Nothing here builds a whole collection; a stored bulk goes to the client as it lies.
- A search for a bulk may hit bytes inside a value that look like it; only a hit that the offset table names counts.
"""

from __future__ import annotations

import struct

from pipeline.format.values import COUNT_BYTES, HEAD_BYTES, OFFSET_BYTES, SCORE_BYTES, body_start, bulk

FIELDS_REMEMBERED_MAX = 4_096  # distinct field names over all datasets that a shard keeps a position of

_U32 = struct.Struct("<I").unpack_from
_PAIR = struct.Struct("<II").unpack_from
_DOUBLE = struct.Struct("<d").unpack_from


def count(raw: bytes) -> int:
    """How many pairs or members a packed value holds."""
    number: int = _U32(raw, body_start(raw) if raw[1] else HEAD_BYTES)[0]
    return number


def hash_bulks(raw: bytes) -> tuple[int, bytes]:
    """The number of pairs, and all their bulks end to end: what HGETALL sends after its header."""
    at = body_start(raw) if raw[1] else HEAD_BYTES
    pairs: int = _U32(raw, at)[0]
    return pairs, raw[at + COUNT_BYTES + OFFSET_BYTES * (pairs + 1) :]


class FieldFinder:
    """Values of fields. Rows of a dataset share their field order, so where a field stood last is where it is looked for first."""

    def __init__(self) -> None:
        self._remembered: dict[bytes, tuple[bytes, int]] = {}

    def find(self, raw: bytes, fields: list[bytes]) -> list[bytes | None]:
        """The value of every field as a bulk; None for fields that are not there."""
        table = (body_start(raw) if raw[1] else HEAD_BYTES) + COUNT_BYTES
        pairs: int = _U32(raw, table - COUNT_BYTES)[0]
        bulks = table + OFFSET_BYTES * (pairs + 1)
        remembered = self._remembered
        found: list[bytes | None] = []
        for field in fields:
            wanted, index = remembered.get(field) or (bulk(field), 0)
            if index < pairs:
                start, end = _PAIR(raw, table + OFFSET_BYTES * index)
                if raw.startswith(wanted, bulks + start):
                    found.append(raw[bulks + start + len(wanted) : bulks + end])
                    continue
            index = _search(raw, wanted, table, bulks, pairs)
            if index < 0:
                found.append(None)
                continue
            self._remember(field, wanted, index)
            start, end = _PAIR(raw, table + OFFSET_BYTES * index)
            found.append(raw[bulks + start + len(wanted) : bulks + end])
        return found

    def index(self, raw: bytes, field: bytes) -> int:
        """Which pair a field is in; negative if it is in none."""
        table = (body_start(raw) if raw[1] else HEAD_BYTES) + COUNT_BYTES
        pairs: int = _U32(raw, table - COUNT_BYTES)[0]
        bulks = table + OFFSET_BYTES * (pairs + 1)
        wanted, index = self._remembered.get(field) or (bulk(field), 0)
        if index < pairs and raw.startswith(wanted, bulks + _U32(raw, table + OFFSET_BYTES * index)[0]):
            return index
        index = _search(raw, wanted, table, bulks, pairs)
        if index >= 0:
            self._remember(field, wanted, index)
        return index

    def _remember(self, field: bytes, wanted: bytes, index: int) -> None:
        if len(self._remembered) >= FIELDS_REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[field] = (wanted, index)


class PackedZset:
    """A view of a packed sorted set; ranks are 0-based."""

    __slots__ = ("_bulks", "_raw", "_scores", "_table", "count")

    def __init__(self, raw: bytes) -> None:
        at = body_start(raw) if raw[1] else HEAD_BYTES
        self._raw = raw
        self.count: int = _U32(raw, at)[0]
        self._scores = at + COUNT_BYTES
        self._table = self._scores + SCORE_BYTES * self.count
        self._bulks = self._table + OFFSET_BYTES * (self.count + 1)

    def score(self, rank: int) -> float:
        """The score at a rank."""
        number: float = _DOUBLE(self._raw, self._scores + SCORE_BYTES * rank)[0]
        return number

    def scores(self, first: int, end: int) -> tuple[float, ...]:
        """The scores of ranks `first` to before `end`."""
        return struct.unpack_from(f"<{end - first}d", self._raw, self._scores + SCORE_BYTES * first)

    def bulk(self, rank: int) -> bytes:
        """The member at a rank, as a bulk."""
        start, end = _PAIR(self._raw, self._table + OFFSET_BYTES * rank)
        return self._raw[self._bulks + start : self._bulks + end]

    def bulks(self, first: int, end: int) -> bytes:
        """The members of ranks `first` to before `end` as bulks, end to end."""
        low: int = _U32(self._raw, self._table + OFFSET_BYTES * first)[0]
        high: int = _U32(self._raw, self._table + OFFSET_BYTES * end)[0]
        return self._raw[self._bulks + low : self._bulks + high]

    def member(self, rank: int) -> bytes:
        """The member at a rank."""
        whole = self.bulk(rank)
        return whole[whole.index(b"\n") + 1 : -2]

    def rank(self, member: bytes) -> int:
        """The rank of a member; negative if it is not there."""
        return _search(self._raw, bulk(member), self._table, self._bulks, self.count)


def _search(raw: bytes, wanted: bytes, table: int, bulks: int, items: int) -> int:
    """Which item starts with the bulk `wanted`; negative if none does."""
    at = raw.find(wanted, bulks)
    while at >= 0:
        low, high = 0, items
        while low < high:
            middle = (low + high) // 2
            if _U32(raw, table + OFFSET_BYTES * middle)[0] < at - bulks:
                low = middle + 1
            else:
                high = middle
        if low < items and _U32(raw, table + OFFSET_BYTES * low)[0] == at - bulks:
            return low
        at = raw.find(wanted, at + 1)
    return -1
