"""A task's sorted rows become entries in the order of their internal keys.

Rules:
- Rows come sorted by `RowSchema.sort_columns`. Entries leave strictly growing; whoever writes them may cut anywhere.
- Several rows for the same are an error that names some, or the last one stands and the others are counted: the spec's on_duplicate.
- A collection made of rows is packed while it is small (`values.SMALL_*`). A larger one is never held in memory: its elements go to a
  scratch database, from which they come back in order when the metas of their slot are through.
- Rows whose value is NULL are deletes: they settle duplicates, and then go, since a version stands for the whole dataset. An `upsert`,
  and a table of changes, keeps one for every key of which nothing else is left, as a meta without a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain, groupby, islice
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.errors import DuplicateKeyError
from pipeline.format.keys import KIND_AT, Kind, element_head, parse_key, parse_sortable_score
from pipeline.format.values import (
    SMALL_BYTES_MAX,
    SMALL_ENTRIES_MAX,
    ValueType,
    element_score,
    encode_big,
    encode_hash,
    encode_zset,
)
from udtf.difference import Difference
from udtf.entries import EntryBatch
from udtf.rocks import Scratch

BATCH_ENTRIES = 4096  # elements handed on together: enough that the hand-over costs nothing, few enough for memory
NAMED_MAX = 5  # duplicates that an error names


Chunk = tuple[pa.Array, pa.Array]
"""Rows of one value each, in order: internal keys and meta values, NULL for deletes."""

Element = tuple[bytes, bytes, bytes | None]
"""A row that is an element: internal key, field or member, value."""

Entry = tuple[bytes, bytes]


@dataclass(slots=True)
class Tally:
    """What became of a task's rows, and how many elements of split keys were written, by user key: fields or members, and ranks; of a
    delta that is compared, the difference.
    """

    stored: int = 0
    duplicates: int = 0
    deleted: int = 0
    split: Counter[bytes] = field(default_factory=Counter)
    split_ranks: Counter[bytes] = field(default_factory=Counter)
    difference: Difference | None = None


def fold_rows(chunks: Iterable[Chunk], tally: Tally, *, last: bool, deletes: bool = False) -> Iterator[EntryBatch]:
    """Rows that make a key each; with `deletes`, those that remove one stay."""
    for keys, values in _settled(chunks, tally) if last else _unique(chunks):
        tally.deleted += values.null_count
        tally.stored += len(keys) - values.null_count
        if not values.null_count:
            yield EntryBatch(keys, values)
        elif deletes:
            yield EntryBatch(keys, pc.fill_null(values, b""))
        elif values.null_count < len(keys):
            yield EntryBatch(keys.filter(values.is_valid()), values.drop_null())


def _unique(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    before = pa.array([None], pa.binary())
    for keys, values in chunks:
        run = pa.concat_arrays([before, keys])
        if pc.any(_same_as_next(run)).as_py():
            raise _duplicate_keys(run)
        before = keys.slice(len(keys) - 1)
        yield keys, values


def _settled(chunks: Iterable[Chunk], tally: Tally) -> Iterator[Chunk]:
    """Of equal keys the last one; the end of a chunk waits for the next one."""
    held: Chunk = (pa.array([], pa.binary()), pa.array([], pa.binary()))
    for more_keys, more_values in chunks:
        keys, values = pa.concat_arrays([held[0], more_keys]), pa.concat_arrays([held[1], more_values])
        final = pc.invert(_same_as_next(keys))
        end = len(keys) - 1
        held = (keys.slice(end), values.slice(end))
        stands = keys.slice(0, end).filter(final)
        tally.duplicates += end - len(stands)
        if len(stands):
            yield stands, values.slice(0, end).filter(final)
    if len(held[0]):
        yield held


def _same_as_next(keys: pa.Array) -> pa.Array:
    """For every key but the last one, whether the next one equals it."""
    return pc.equal(keys.slice(0, len(keys) - 1), keys.slice(1))


class ElementFold:
    """Rows that are elements of their keys: a sorted set's members, or a hash's fields. With `deletes`, keys without any stay."""

    def __init__(
        self, kind: ValueType, expiry_ms: int | None, version: int, scratch: Scratch, tally: Tally, *, deletes: bool = False
    ) -> None:
        self._kind = kind
        self._deletes = deletes
        self._expiry_ms = expiry_ms
        self._version = version
        self._scratch = scratch
        self._tally = tally

    def entries(self, rows: Iterable[Element], *, last: bool) -> Iterator[EntryBatch]:
        """All entries of a task, in batches."""
        single = self._entries(self._settled(rows) if last else self._unique(rows))
        while batch := list(islice(single, BATCH_ENTRIES)):
            yield EntryBatch.of(*zip(*batch, strict=True))

    def _entries(self, rows: Iterable[Element]) -> Iterator[Entry]:
        for start, in_slot in groupby(rows, key=lambda row: row[0][:KIND_AT]):
            for is_meta, some in groupby(in_slot, key=lambda row: row[0][KIND_AT] == Kind.META):
                if is_meta:
                    for meta, elements in groupby(some, key=itemgetter(0)):
                        yield from self._collection(meta, filter(self._is_stored, elements))
                else:
                    split = map(self._counted, filter(self._is_stored, some))
                    yield from merge(self._scratch.entries_of(start), split, key=itemgetter(0))
                    break
            else:
                yield from self._scratch.entries_of(start)

    def _is_stored(self, row: Element) -> bool:
        if row[2] is None:
            self._tally.deleted += 1
            return False
        return True

    def _collection(self, meta: bytes, rows: Iterable[Element]) -> Iterator[Entry]:
        """One key: packed, or its elements on the way to the scratch database; its delete, if no row is left of it."""
        elements = ((element, value or b"") for _, element, value in rows)
        first: list[Entry] = []
        size = 0
        for one in elements:
            first.append(one)
            size += len(one[0]) + len(one[1])
            if len(first) > SMALL_ENTRIES_MAX or size > SMALL_BYTES_MAX:
                yield meta, self._spread(meta, chain(first, elements))
                return
        self._tally.stored += len(first)
        if not first:
            if self._deletes:
                yield meta, b""
        elif self._kind is ValueType.HASH:
            yield meta, encode_hash(first, self._expiry_ms)
        else:
            yield meta, encode_zset([(member, parse_sortable_score(score)) for member, score in first], self._expiry_ms)

    def _spread(self, meta: bytes, elements: Iterable[Entry]) -> bytes:
        parsed = parse_key(meta)
        if self._kind is ValueType.HASH:
            head = element_head(Kind.HASH_FIELD, parsed.user_key, self._version, parsed.slot)
            count = self._scratch.put((head + name, value) for name, value in elements)
        else:
            members = element_head(Kind.ZSET_MEMBER, parsed.user_key, self._version, parsed.slot)
            ranks = element_head(Kind.ZSET_RANK, parsed.user_key, self._version, parsed.slot)
            both = (
                entry
                for member, score in elements
                for entry in ((members + member, element_score(parse_sortable_score(score))), (ranks + score + member, b""))
            )
            count = self._scratch.put(both) // 2
        self._tally.stored += count
        return encode_big(self._kind, self._version, count, self._expiry_ms)

    def _counted(self, row: Element) -> Entry:
        """A row of a split key is an entry already: what is left is to count it."""
        ikey, _, value = row
        parsed = parse_key(ikey)
        if parsed.kind is Kind.ZSET_RANK:
            self._tally.split_ranks[parsed.user_key] += 1
        else:
            self._tally.split[parsed.user_key] += 1
            self._tally.stored += 1
        return ikey, value or b""

    def _unique(self, rows: Iterable[Element]) -> Iterator[Element]:
        before: Element = (b"", b"", b"")
        for row in rows:
            if row[0] == before[0] and row[1] == before[1]:
                raise _duplicate_element(row)
            before = row
            yield row

    def _settled(self, rows: Iterable[Element]) -> Iterator[Element]:
        held: Element | None = None
        for row in rows:
            if held and held[:2] == row[:2]:
                self._tally.duplicates += 1
            elif held:
                yield held
            held = row
        if held:
            yield held


def _duplicate_keys(keys: pa.Array) -> DuplicateKeyError:
    again = keys.slice(1).filter(_same_as_next(keys)).unique()
    twice = sorted(parse_key(one).user_key.decode(errors="backslashreplace") for one in again.to_pylist())
    shown = ", ".join(twice[:NAMED_MAX])
    message = (
        f"several rows give the same key, for instance {shown}: make the key template unique per row, deduplicate the table, "
        f"or set on_duplicate: {{last_by: column}}"
    )
    return DuplicateKeyError(message, keys=twice[:NAMED_MAX])


def _duplicate_element(row: Element) -> DuplicateKeyError:
    parsed = parse_key(row[0])
    name = parsed.user_key.decode(errors="backslashreplace")
    shown = (row[1] or parsed.detail).decode(errors="backslashreplace")
    message = (
        f"several rows give the element {shown} of the key {name}: make its template unique per row, deduplicate the table, "
        f"or set on_duplicate: {{last_by: column}}"
    )
    return DuplicateKeyError(message, key=name, element=shown)
