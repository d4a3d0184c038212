"""The live database with the writes that are still to be written: what clients change, batched.

Rules:
- A write is seen by every read at once, and is in the database after `commit`: all writes since the last one, by one WriteBatch, so after
  a crash all of them are there or none.
- Nobody commits in the middle of a command: whoever runs commands does, between two of them, before their replies leave.
- `commit` leaves the writes in the write-ahead log, not yet on the disk: walsync.py does that.
- An iterator sees database and writes as they were when it was made.
- `clear` is a write too: of all slots, as one range. The shard's own notes are not in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from pipeline.format.errors import NodeError
from pipeline.format.keys import slot_bounds
from pipeline.format.slots import SLOT_COUNT
from server.storage.rankmemory import RankMemories
from server.storage.rocks import Database

Entry = tuple[bytes, bytes]

ALL_SLOTS = slot_bounds(0, SLOT_COUNT - 1)
PENDING_BYTES_MAX = 1 << 20  # beyond it, writes are committed before the next command: a batch is written in about 3 ms, and held twice
SORTED_SHARE = 16  # new keys are put in their places one by one, unless they are more than one in so many
ENTRY_BYTES = 64  # what a pending write costs beside its bytes, about

_UNWRITTEN: Any = object()  # not None, which stands for a removed key
_key_of = itemgetter(0)


class LiveStore:
    """Reads and writes by internal key. `pending_bytes` is what waits for `commit`; `commits` counts those that wrote something; `ranks` is
    what is remembered of big sorted sets.
    """

    __slots__ = ("_cleared", "_get", "_ordered", "_pending", "commits", "database", "failures", "last_failure", "pending_bytes", "ranks")

    def __init__(self, database: Database) -> None:
        self.database = database
        self._get: Callable[[bytes], bytes | None] = database.get
        self._pending: dict[bytes, bytes | None] = {}
        self._ordered: list[bytes] = []  # the first keys of `_pending`, as many as there were when it was last walked over, sorted
        self._cleared = False
        self.pending_bytes = 0
        self.commits = 0
        self.failures = 0
        self.last_failure: NodeError | None = None
        self.ranks = RankMemories()

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        if self._pending:
            found: bytes | None = self._pending.get(key, _UNWRITTEN)
            if found is not _UNWRITTEN:
                return found
        return self._get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of some keys, in their order, by one MultiGet."""
        values: list[bytes | None] = [None] * len(keys) if self._cleared else self.database.get_many(keys)
        if self._pending:
            pending = self._pending
            return [pending.get(key, value) for key, value in zip(keys, values, strict=True)]
        return values

    def put(self, key: bytes, value: bytes) -> None:
        """Write one value."""
        self._pending[key] = value
        self.pending_bytes += len(key) + len(value) + ENTRY_BYTES

    def delete(self, key: bytes) -> None:
        """Remove one key, present or not."""
        self._pending[key] = None
        self.pending_bytes += len(key) + ENTRY_BYTES

    def entries_from(self, key: bytes, *, backwards: bool = False, head: bytes = b"") -> Iterator[Entry]:
        """Entries in key order, from the first one that is not below `key`, or `backwards` from the last one that is not above it. Of
        others than those that start with `head`, it may give what was there before the pending writes.
        """
        stored = iter(()) if self._cleared else self.database.entries_from(key, backwards=backwards)
        written = self._written(key, head, backwards=backwards) if self._pending else []
        return _overlaid(stored, written, backwards=backwards) if written else stored

    def _written(self, key: bytes, head: bytes, *, backwards: bool) -> list[tuple[bytes, bytes | None]]:
        """The pending writes that a walk from `key` meets, in its order, as they are now."""
        ordered, pending = self._in_order(), self._pending
        if backwards:
            keys = ordered[bisect_left(ordered, head) : bisect_right(ordered, key)]
            keys.reverse()
        else:
            keys = ordered[bisect_left(ordered, key) : bisect_right(ordered, head, key=lambda one: one[: len(head)])]
        return [(one, pending[one]) for one in keys]

    def _in_order(self) -> list[bytes]:
        """All pending keys; a dictionary keeps them as they came, so those that are new since the last time are its last ones."""
        ordered = self._ordered
        fresh = len(self._pending) - len(ordered)
        if fresh * SORTED_SHARE > len(ordered):
            ordered += islice(reversed(self._pending), fresh)
            ordered.sort()
        else:
            for key in islice(reversed(self._pending), fresh):
                insort(ordered, key)
        return ordered

    def keys_from(self, key: bytes) -> Iterator[bytes]:
        """The keys of entries in order, from the first one that is not below `key`."""
        if self._pending or self._cleared:
            return map(_key_of, self.entries_from(key))
        return self.database.keys_from(key)

    def write_early(self, entries: Iterable[Entry]) -> None:
        """Write entries that mean nothing until a later commit names them: at once, so that many need not wait in memory."""
        if not self._cleared:
            self.database.write(entries)
            return
        for key, value in entries:
            self.put(key, value)

    def clear(self) -> None:
        """Remove every key of every slot."""
        self._pending, self._ordered = {}, []
        self.ranks.by_key.clear()
        self._cleared = True
        self._get = _nothing
        self.pending_bytes = ENTRY_BYTES

    def commit(self) -> bool:
        """Write what is pending; whether there was something. Whatever comes of it, nothing is pending then.

        Raises:
            NodeError: RocksDB can't write. Nothing was.
        """
        if not self._pending and not self._cleared:
            return False
        pending, cleared = self._pending, self._cleared
        self.discard()
        try:
            self._write(pending, cleared=cleared)
        except NodeError as failed:
            self.failures += 1
            self.last_failure = failed
            self.ranks.by_key.clear()
            raise
        self.commits += 1
        return True

    def _write(self, pending: dict[bytes, bytes | None], *, cleared: bool) -> None:
        if cleared or len(pending) != 1:
            self.database.write(pending.items(), ALL_SLOTS if cleared else None)
            return
        ((key, value),) = pending.items()  # half the cost of a batch
        if value is None:
            self.database.delete(key)
        else:
            self.database.put(key, value)

    def discard(self) -> None:
        """Forget what is pending."""
        self._pending, self._ordered, self.pending_bytes = {}, [], 0
        self._cleared = False
        self._get = self.database.get


def _nothing(_key: bytes) -> bytes | None:
    return None


def _overlaid(stored: Iterator[Entry], written: list[tuple[bytes, bytes | None]], *, backwards: bool) -> Iterator[Entry]:
    """Both in key order; of one key, what was written."""
    both = merge(written, stored, key=_key_of, reverse=backwards)  # of equal keys, those of the first iterable come first
    for _, entries in groupby(both, _key_of):
        key, value = next(entries)
        if value is not None:
            yield key, value
