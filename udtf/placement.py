"""Which task writes which rows: ranges of internal keys of even weight, and keys that are split over several tasks.

Rules:
- Borders come from a sample. A border lies between slots, unless a slot is so heavy that it is shared by several tasks.
- A key of many elements that is too heavy for one task is split: its rows travel as ready entries under element keys of their own, a
  sorted set's twice (by member and by rank), so that Spark's sort spreads them. Its meta is written last, from counts (udtf/split.py).
- Files never overlap: where entries of several tasks lie between each other there is a fence, and no file reaches over a fence.

A shared slot holds metas, then elements of each kind, and every task adds to each of these; so fences stand between the kinds. A split
key's meta and elements lie between those of other keys; so fences stand around them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.keys import Kind, element_head, meta_key, parse_key
from pipeline.format.values import ValueType
from udtf.layout import fixed, join
from udtf.packing import plain_scores
from udtf.rows import COUNTER_KEY, ELEMENT, IKEY, VALUE, RowSchema

SPLIT_SHARE = 0.5  # of a task's mean: lighter keys can't make a task more than 1.5 times the mean
SPLIT_ROWS_MIN = 65_536  # a key of fewer rows is a second of work: not worth files of its own
SHARED_SHARE = 0.25  # of a task's mean: a border inside a lighter slot moves to the slot's start

ROW_BYTES = 200  # what a row costs by itself: as much as so many bytes of its texts

_SLOT_BYTES = 2
_VERSION_BYTES = 8  # at the end of an element's head


@dataclass(frozen=True)
class Placement:
    """`borders` are where the second and every later task begins, `splits` the internal keys of split keys' metas; both sorted.

    `version` is the element version of this build (`keys.element_version`), `kind` what the dataset's keys are.
    """

    kind: ValueType
    version: int
    borders: tuple[bytes, ...] = ()
    splits: tuple[bytes, ...] = ()

    @property
    def tasks(self) -> int:
        """How many tasks write."""
        return len(self.borders) + 1

    @cached_property
    def fences(self) -> tuple[bytes, ...]:
        """Internal keys, sorted: no file holds both a smaller key and one that is not smaller."""
        shared = {border[:_SLOT_BYTES] for border in self.borders if len(border) > _SLOT_BYTES}
        found = {slot + bytes((kind,)) for slot in shared for kind in (Kind.HASH_FIELD, Kind.ZSET_MEMBER, Kind.ZSET_RANK)}
        found |= {_after(slot) for slot in shared}
        for meta in self.splits:
            heads = [self._head(kind, meta)[:-_VERSION_BYTES] for kind in ELEMENTS_OF[self.kind]]  # of all element versions
            found |= {meta, meta + b"\x00", *heads, *map(_after, heads)}
        return tuple(sorted(found))

    def place(self, batch: pa.RecordBatch, schema: RowSchema) -> pa.RecordBatch:
        """A batch of encoded rows with the task of each in front; rows of split keys become ready entries. Counters go to task 0."""
        counters = pc.equal(batch.column(IKEY), COUNTER_KEY)
        if not pc.any(counters).as_py():
            return self._place_rows(batch, schema)
        counted = batch.filter(counters)
        placed = [_in_front(np.zeros(counted.num_rows, np.int32), counted, schema)]
        if counted.num_rows < batch.num_rows:
            placed.append(self._place_rows(batch.filter(pc.invert(counters)), schema))
        return pa.Table.from_batches(placed).combine_chunks().to_batches()[0]

    def _place_rows(self, batch: pa.RecordBatch, schema: RowSchema) -> pa.RecordBatch:
        if self.splits:
            split = pc.is_in(batch.column(IKEY), pa.array(self.splits, pa.binary()))
            if pc.any(split).as_py():
                whole = batch.filter(pc.invert(split))
                batch = pa.Table.from_batches([whole, *self._entries(batch.filter(split))]).combine_chunks().to_batches()[0]
        return _in_front(self.task_of(batch.column(IKEY)), batch, schema)

    def task_of(self, ikeys: pa.Array) -> npt.NDArray[np.int32]:
        """The task of every internal key, from 0 on."""
        if not self.borders:
            return np.zeros(len(ikeys), np.int32)
        slots = np.frombuffer(pc.binary_slice(ikeys, 0, _SLOT_BYTES).buffers()[2] or b"", ">u2")[: len(ikeys)]
        starts = np.frombuffer(b"".join(border[:_SLOT_BYTES] for border in self.borders), ">u2")
        tasks = np.searchsorted(starts, slots, side="right").astype(np.int32)
        inside = [int.from_bytes(border[:_SLOT_BYTES]) for border in self.borders if len(border) > _SLOT_BYTES]
        rows = np.flatnonzero(np.isin(slots, inside)) if inside else np.empty(0, np.int64)
        if len(rows):
            listed = ikeys.take(pa.array(rows)).to_pylist()
            tasks[rows] = [bisect_right(self.borders, ikey) for ikey in listed]
        return tasks

    def owner(self, ikey: bytes) -> int | None:
        """The task that an entry belongs to, whatever build made it: elements to their key's, those of split keys wherever they lie; None
        for the meta of a split key, which is no task's.
        """
        parsed = parse_key(ikey)
        meta = ikey if parsed.kind is Kind.META else meta_key(parsed.user_key, parsed.slot)
        if meta in self._split_metas:
            return None if meta is ikey else bisect_right(self.borders, ikey)
        return bisect_right(self.borders, meta)

    @cached_property
    def _split_metas(self) -> frozenset[bytes]:
        return frozenset(self.splits)

    def is_plain(self, task: int) -> bool:
        """Whether all that lies between a task's borders is its own, and nothing else: it shares no slot, and no key is split."""
        return not self.splits and all(len(border) == _SLOT_BYTES for border in self.borders[max(0, task - 1) : task + 1])

    def ranges_of(self, task: int) -> tuple[tuple[bytes, bytes | None], ...]:
        """Half-open ranges of internal keys, in order, in which all entries of a task lie, though others' may, too; None is the end.

        A border between metas of one slot is one between their elements as well, which lie behind all metas of the slot.
        """
        low = self.borders[task - 1] if task else b""
        high = self.borders[task] if task < len(self.borders) else None
        ranges: list[tuple[bytes, bytes | None]] = [(low, high)]
        if high is None or len(high) == _SLOT_BYTES:
            return tuple(ranges)
        slot = high[:_SLOT_BYTES]
        for kind in ELEMENTS_OF[self.kind]:
            begin = self._element_border(low, kind) if low[:_SLOT_BYTES] == slot else slot + bytes((kind,))
            ranges.append((max(begin, high), max(self._element_border(high, kind), high)))
        return tuple(one for one in ranges if one[1] is None or one[0] < one[1])

    def _element_border(self, border: bytes, kind: Kind) -> bytes:
        """Where the elements of a border's slot begin whose metas are not below it."""
        slot = border[:_SLOT_BYTES]
        if len(border) == _SLOT_BYTES:
            return slot + bytes((kind,))
        parsed = parse_key(border)
        if parsed.kind is Kind.META:
            return element_head(kind, parsed.user_key, 0, parsed.slot)[:-_VERSION_BYTES]
        return slot + bytes((kind + 1,))  # behind all metas, and so are their elements

    def _entries(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Rows of split keys as entries: element keys, and the values that stand under them."""
        elements, values = batch.column(ELEMENT), batch.column(VALUE)
        if self.kind is ValueType.HASH:
            return [self._renamed(batch, [self._heads(Kind.HASH_FIELD, batch), elements], values)]
        deleted = pc.is_null(values)
        plain = pc.if_else(deleted, pa.scalar(None, pa.binary()), fixed(plain_scores(values).reshape(-1, 1)))
        members = self._renamed(batch, [self._heads(Kind.ZSET_MEMBER, batch), elements], plain)
        kept = batch.filter(pc.invert(deleted))
        rank = [self._heads(Kind.ZSET_RANK, kept), kept.column(VALUE), kept.column(ELEMENT)]
        return [members, self._renamed(kept, rank, pa.array([b""] * kept.num_rows, pa.binary()))]

    @staticmethod
    def _renamed(batch: pa.RecordBatch, key: list[pa.Array], values: pa.Array) -> pa.RecordBatch:
        made = {IKEY: join(key), ELEMENT: pa.array([b""] * batch.num_rows, pa.binary()), VALUE: values}
        arrays = [made[name] if name in made else batch.column(name) for name in batch.schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _heads(self, kind: Kind, batch: pa.RecordBatch) -> pa.Array:
        by_meta = {meta: self._head(kind, meta) for meta in self.splits}
        return pa.array([by_meta[ikey] for ikey in batch.column(IKEY).to_pylist()], pa.binary())

    def _head(self, kind: Kind, meta: bytes) -> bytes:
        parsed = parse_key(meta)
        return element_head(kind, parsed.user_key, self.version, parsed.slot)


def _in_front(tasks: npt.NDArray[np.int32], batch: pa.RecordBatch, schema: RowSchema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(tasks), *batch.columns], schema=schema.placed_arrow)


ELEMENTS_OF = {ValueType.STRING: (), ValueType.HASH: (Kind.HASH_FIELD,), ValueType.ZSET: (Kind.ZSET_MEMBER, Kind.ZSET_RANK)}


def place_elements(
    whole: Placement,
    sample: Sequence[pa.RecordBatch],
    schema: RowSchema,
    tasks: int,
    rows: int,
    split_rows_min: int,
    weigh: Callable[[pa.Array], pa.Array] = pc.binary_length,
) -> Placement:
    """Where tasks of even work begin for rows that are elements, from a sample of them; `whole` is one task that has everything. `rows` are
    those of the table; `weigh` tells the bytes that a VALUE of the sample stands for.
    """
    metas = [ikey for batch in sample for ikey in batch.column(IKEY).to_pylist()]
    unplaced = replace(whole, splits=split_keys(metas, tasks, rows, split_rows_min))
    weighed: list[tuple[bytes, int]] = []
    for batch in sample:
        placed = unplaced.place(batch, schema)
        weights = pc.add(pc.fill_null(weigh(placed.column(VALUE)), 0), pc.binary_length(placed.column(ELEMENT)))
        weighed += zip(placed.column(IKEY).to_pylist(), weights.to_pylist(), strict=True)
    return replace(unplaced, borders=even_borders(weighed, tasks))


def split_keys(ikeys: Sequence[bytes], tasks: int, rows: int, rows_min: int = SPLIT_ROWS_MIN) -> tuple[bytes, ...]:
    """The metas of a sample that one task alone should not carry."""
    share_min = SPLIT_SHARE / tasks * len(ikeys)
    rows_each = rows / max(1, len(ikeys))
    return tuple(sorted(ikey for ikey, count in Counter(ikeys).items() if count >= share_min and count * rows_each >= rows_min))


def even_borders(weighed: Iterable[tuple[bytes, int]], tasks: int) -> tuple[bytes, ...]:
    """Borders between `tasks` ranges (or fewer) of about as much work each, from a sample of keys and the bytes of their rows."""
    ordered = sorted(weighed)
    ikeys = [ikey for ikey, _ in ordered]
    before = np.cumsum([0, *(ROW_BYTES + weight for _, weight in ordered)])  # what lies before each key, and in the end all
    found = set()
    for task in range(1, tasks if ikeys else 1):
        border = ikeys[int(np.searchsorted(before, task * before[-1] / tasks, side="right")) - 1]
        slot = border[:_SLOT_BYTES]
        first, end = bisect_left(ikeys, slot), bisect_left(ikeys, _after(slot))
        is_light = end - first == 1 or before[end] - before[first] <= SHARED_SHARE * before[-1] / tasks
        found.add(slot if is_light else border)
    found.discard(meta_key(b"", 0)[:_SLOT_BYTES])
    return tuple(sorted(found))


def _after(start: bytes) -> bytes:
    """The smallest key above all that begin with `start`. None of ours begins with 0xFF alone."""
    number = int.from_bytes(start) + 1
    return number.to_bytes(len(start))
