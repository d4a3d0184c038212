"""Takes away the elements of big collections that nothing names any more (heads.py): what DEL, SET, RENAME and expiry leave.

Rules:
- Two sources: what the engine says was abandoned, swept within moments; and a round over all heads, one seek each, so that nothing need be
  remembered: what was overwritten unread, or abandoned before a restart, is found by it.
- Every head is compared with its key's meta value in the turn in which it is removed. One that is under construction is spared.
- A step is bounded in seeks and in elements, and commits what it removed. What a large collection has beyond that goes as one range: so
  many single removals would be in the way of every scan that passes them.
"""

from __future__ import annotations

from collections import OrderedDict

from pipeline.format.keys import Kind
from server.storage.engine import Engine
from server.storage.heads import Head, first_head, head_at, heads_after, heads_of, is_named
from server.storage.lookup import META_HEADS

HEADS_PER_STEP_MAX = 16  # seeks of the round: about 0.3 ms
ELEMENTS_PER_STEP_MAX = 512  # of one head, removed one by one; a step takes up heads until it has removed so many: about 2 ms
STEPS_PER_SECOND = 10
STEPS_PER_SECOND_BUSY = 20  # while something is known to be removed: at most 20,000 elements a second
QUEUED_MAX = 10_000  # heads known as garbage; the round waits when there are so many


class Sweep:
    """The sweep of one live database. `collections` counts what was removed, `elements` those of it that were removed one by one, `rounds`
    how often all heads were looked at.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keys_from = engine.live.database.keys_from  # between two turns of the loop, no write is pending but the sweep's own
        self._queue: OrderedDict[bytes, Head] = OrderedDict()  # in order, by what the head is: both sources may find one
        self._position = first_head(0)
        self.collections = 0
        self.elements = 0
        self.rounds = 0

    @property
    def backlog(self) -> int:
        """Collections known as garbage, about."""
        return len(self._queue) + len(self._engine.abandoned)

    def step(self) -> float:
        """Remove something, look further; how many seconds to wait until the next step.

        Raises:
            NodeError: RocksDB can't read or write.
            FormatError: a key breaks the grammar; the round goes on behind it.
        """
        self._hear()
        removed = 0
        while self._queue and removed < ELEMENTS_PER_STEP_MAX:
            removed += self._remove(self._queue.popitem(last=False)[1])
        self._engine.live.commit()
        if len(self._queue) < QUEUED_MAX:
            self._look()
        return 1 / (STEPS_PER_SECOND_BUSY if self.backlog else STEPS_PER_SECOND)

    def _hear(self) -> None:
        abandoned = self._engine.abandoned
        while abandoned and len(self._queue) < QUEUED_MAX:
            self._queue.update((head.raw, head) for head in heads_of(*abandoned.popleft()))

    def _remove(self, head: Head) -> int:
        """How many elements were removed one by one, at least 1."""
        if not self._is_garbage(head):
            return 1
        live, removed = self._engine.live, 0
        for key in self._keys_from(head.raw):
            if not key.startswith(head.raw):
                break
            if removed == ELEMENTS_PER_STEP_MAX:
                live.database.delete_range(key, head.end)
                break
            live.delete(key)
            removed += 1
        self.elements += removed
        self.collections += removed > 0 and head.kind is not Kind.ZSET_RANK
        return max(removed, 1)

    def _look(self) -> None:
        """One stretch of the round."""
        for _ in range(HEADS_PER_STEP_MAX):
            found = next(self._keys_from(self._position), None)
            after = None if found is None else heads_after(found)
            if found is None or after is None:
                self._position = first_head(0)
                self.rounds += 1
                return
            self._position = found + b"\x00"  # if it can't be read, the round goes on all the same
            head = head_at(found)
            if head is None:
                self._position = after
                continue
            self._position = head.end
            if self._is_garbage(head):
                self._queue[head.raw] = head

    def _is_garbage(self, head: Head) -> bool:
        if (head.user_key, head.version) in self._engine.constructing:
            return False
        return not is_named(head, self._engine.live.get(META_HEADS[head.slot] + head.user_key))
