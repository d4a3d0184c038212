"""The difference between a version and the one that it lies on: the entries that are new or other, and those that went.

Rules:
- Both come in key order, and so does what leaves; of the two sorts each has an order of its own.
- What is counted is what the version holds in all, not what differs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.keys import KIND_AT, Kind
from pipeline.format.manifest import Whole
from udtf.base import Entries
from udtf.entries import EntryBatch


class Parts(NamedTuple):
    """Entries that are put, and entries that are deleted; some of either, or none."""

    puts: EntryBatch | None
    gone: EntryBatch | None


class Difference:
    """One task's difference. `same` is called with some entries that are as before."""

    def __init__(self, base: Iterator[Entries]) -> None:
        self._base = base
        self._old: dict[bytes, bytes] = {}
        self._reaches: bytes | None = b""  # the last key of the base that was looked at; None at its end
        self._keys = self._entries = 0
        self.unchanged: list[tuple[bytes, bytes]] = []

    @property
    def whole(self) -> Whole:
        """What the version holds in all, when all of it is through."""
        return Whole(keys=self._keys, entries=self._entries)

    def of(self, entries: Iterable[EntryBatch]) -> Iterator[Parts]:
        """What differs, of all entries of the version."""
        for batch in entries:
            self._keys += int(batch.is_meta.sum())
            self._entries += len(batch)
            keys, values, start = batch.keys.to_pylist(), batch.values.to_pylist(), 0
            while start < len(keys):
                while self._reaches is not None and self._reaches < keys[start]:
                    yield from self._further()
                end = len(keys) if self._reaches is None else bisect_right(keys, self._reaches, start)
                changed = [at for at in range(start, end) if self._old.pop(keys[at], None) != values[at]]
                if changed:
                    rows = pa.array(changed, pa.int64())
                    yield Parts(EntryBatch(batch.keys.take(rows), batch.values.take(rows)), None)
                self._note_unchanged(keys, values, start, end, changed)
                start = end
        while self._reaches is not None:
            yield from self._further()

    def _note_unchanged(self, keys: list[bytes], values: list[bytes], start: int, end: int, changed: list[int]) -> None:
        """One meta that is as before, for the samples."""
        differ = set(changed)
        at = next((at for at in range(start, end) if at not in differ and keys[at][KIND_AT] == Kind.META), None)
        if at is not None:
            self.unchanged.append((keys[at], values[at]))

    def _further(self) -> Iterator[Parts]:
        """Go on in the base: what is left of what was looked at is not in the version."""
        if self._old:
            yield Parts(None, EntryBatch.of(list(self._old), [b""] * len(self._old), gone=True))
        found = next(self._base, None)
        if found is None:
            self._old, self._reaches = {}, None
        else:
            self._old, self._reaches = dict(zip(*found, strict=True)), found[0][-1]


def apart(entries: Iterable[EntryBatch]) -> Iterator[Parts]:
    """The entries of a table of changes, in which a meta without a value is a delete."""
    for batch in entries:
        deleted = pa.array(batch.is_delete)
        if not pc.any(deleted).as_py():
            yield Parts(batch, None)
            continue
        gone, kept = batch.keys.filter(deleted), pc.invert(deleted)
        puts = EntryBatch(batch.keys.filter(kept), batch.values.filter(kept)) if pc.any(kept).as_py() else None
        yield Parts(puts, EntryBatch(gone, pa.array([b""] * len(gone), pa.binary()), gone=True))
