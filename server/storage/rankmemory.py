"""What is remembered of the ranks of live big sorted sets, so that walks over them start where something is.

Why: removed entries stay in RocksDB as tombstones until they are compacted. A queue (add at one end, pop at the other) would step over all
that it ever popped, a quarter of a microsecond each, to find its first member.

Rules:
- `low` and `high` are bounds, never guesses: no rank lies below `low`, none at `high` or above. A walk from an end learns them, a member
  that is added widens them, one that goes leaves them as they are.
- Checkpoints (big.py) hold as long as no member comes, goes or moves.
- Whatever else happens to the key (another value, another expiry, a rename) makes it forgotten, and so does a batch that was not written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SETS_MAX = 1_024  # remembered at the same time, those that were walked last: some 300 bytes each, and 50 for a thousand members


@dataclass(slots=True)
class RankMemory:
    """Of one set of one element version: ranks as they stand behind the head of an element key."""

    version: int
    low: bytes = b""
    high: bytes = b""  # empty: not known
    checkpoints: list[bytes] = field(default_factory=list)

    def changed(self, added: list[bytes]) -> None:
        """Members came, went or moved; `added` are ranks that are new."""
        self.checkpoints = []
        if not added:
            return
        self.low = min(self.low, *added)
        if self.high:
            self.high = max(self.high, max(added) + b"\x00")


class RankMemories:
    """By user key. `by_key` is the same dictionary for ever, so that others can look into it at no cost."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[bytes, RankMemory] = {}

    def of(self, key: bytes, version: int) -> RankMemory:
        """What is known of a set, to be added to."""
        memory = self.by_key.pop(key, None)
        if memory is None or memory.version != version:
            memory = RankMemory(version)
        self.keep(key, memory)
        return memory

    def keep(self, key: bytes, memory: RankMemory) -> None:
        """Remember it, as the one that was used last."""
        self.by_key[key] = memory
        if len(self.by_key) > SETS_MAX:
            del self.by_key[next(iter(self.by_key))]
