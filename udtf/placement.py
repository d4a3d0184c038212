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
from collections.abc import Sequence
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

_SLOT_BYTES = 2


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
            heads = [self._head(kind, meta) for kind in _ELEMENT_KINDS[self.kind]]
            found |= {meta, meta + b"\x00", *heads, *map(_after, heads)}
        return tuple(sorted(found))

    def place(self, batch: pa.RecordBatch, schema: RowSchema) -> pa.RecordBatch:
        """A batch of encoded rows with the task of each in front; rows of split keys become ready entries. Counters go first."""
        if batch.num_rows == 1 and batch.column(IKEY)[0].as_py() == COUNTER_KEY:
            return _in_front(np.zeros(1, np.int32), batch, schema)
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


_ELEMENT_KINDS = {ValueType.STRING: (), ValueType.HASH: (Kind.HASH_FIELD,), ValueType.ZSET: (Kind.ZSET_MEMBER, Kind.ZSET_RANK)}


def place_elements(
    whole: Placement, sample: Sequence[pa.RecordBatch], schema: RowSchema, tasks: int, rows_estimate: float, split_rows_min: int
) -> Placement:
    """Where tasks of even work begin for rows that are elements, from a sample of them; `whole` is one task that has everything."""
    metas = [ikey for batch in sample for ikey in batch.column(IKEY).to_pylist()]
    unplaced = replace(whole, splits=split_keys(metas, tasks, rows_estimate, split_rows_min))
    ikeys = [ikey for batch in sample for ikey in unplaced.place(batch, schema).column(IKEY).to_pylist()]
    return replace(unplaced, borders=even_borders(sorted(ikeys), tasks))


def split_keys(ikeys: Sequence[bytes], tasks: int, rows_estimate: float, rows_min: int = SPLIT_ROWS_MIN) -> tuple[bytes, ...]:
    """The metas of a sample that one task alone should not carry."""
    share_min = SPLIT_SHARE / tasks * len(ikeys)
    rows_each = rows_estimate / max(1, len(ikeys))
    return tuple(sorted(ikey for ikey, count in Counter(ikeys).items() if count >= share_min and count * rows_each >= rows_min))


def even_borders(ikeys: Sequence[bytes], tasks: int) -> tuple[bytes, ...]:
    """Borders between `tasks` ranges (or fewer) of about as many keys of a sorted sample each."""
    found = set()
    for task in range(1, tasks if ikeys else 1):
        border = ikeys[task * len(ikeys) // tasks]
        slot = border[:_SLOT_BYTES]
        in_slot = bisect_left(ikeys, _after(slot)) - bisect_left(ikeys, slot)
        found.add(slot if in_slot <= max(1.0, SHARED_SHARE * len(ikeys) / tasks) else border)
    found.discard(meta_key(b"", 0)[:_SLOT_BYTES])
    return tuple(sorted(found))


def _after(start: bytes) -> bytes:
    """The smallest key above all that begin with `start`. None of ours begins with 0xFF alone."""
    number = int.from_bytes(start) + 1
    return number.to_bytes(len(start))
