"""Big collections, of versions and live: read element by element, never as a whole unless a client asks for all.

Rules:
- Elements come from where their meta value came from. A version is held open (`OpenVersion.pins`) while a BigCollection of it is used as a
  context manager, so that an answer over several turns of the event loop is of one version. A live collection may change between two turns:
  an iterator keeps what it saw, so whatever must be of one moment is read by one iterator, made in the turn that read the meta value.
- Nothing holds the loop for more than STEPS_PER_TURN entries.
- A place by rank is found from the nearest end, or from checkpoints: every version remembers every CHECKPOINT_STEP-th entry that it was
  walked past, for the collections read last. Versions never change, so a checkpoint is never wrong. Those of live sorted sets, and
  where these begin and end, are remembered until they change (rankmemory.py); live hashes have none.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

from pipeline.format.errors import FormatError
from pipeline.format.keys import SCORE_BYTES, Kind, element_head, parse_sortable_score
from pipeline.format.values import NEGATIVE_ZERO, BigValue, ValueType, decode_value, parse_element_score
from server.storage.datasets import OpenVersion
from server.storage.live import LiveStore
from server.storage.rankmemory import RankMemory

STEPS_PER_TURN = 2_048  # about 1 ms
CHECKPOINT_STEP = 1_024  # entries between two checkpoints: a place is found within that many steps
CHECKPOINTED_MAX = 256  # collections per version whose checkpoints are kept: 2,000 of some 50 bytes for two million members

Walked = TypeVar("Walked")
Entry = tuple[bytes, bytes]
"""What stands behind the head of an element key, and the value under it."""


class BigCollection:
    """One big collection. A context manager while it is read over several turns. `version` is its element version."""

    def __init__(
        self, source: OpenVersion | LiveStore, unpin: Callable[[OpenVersion], None], user_key: bytes, slot: int, raw: bytes
    ) -> None:
        value = decode_value(raw)
        if not isinstance(value, BigValue):
            raise FormatError(f"meta value {raw[:16]!r}... is no big collection's")
        self.count = value.count
        self.type = value.type
        self.version = value.version
        self._source = source
        self._opened = source if isinstance(source, OpenVersion) else None
        self._elements = source.database if isinstance(source, OpenVersion) else source
        self._unpin = unpin
        self.user_key = user_key
        self.slot = slot

    def __enter__(self) -> Self:
        if self._opened is not None:
            self._opened.pins += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._opened is not None:
            self._unpin(self._opened)

    @property
    def live(self) -> bool:
        """Whether it may change between two turns."""
        return self._opened is None

    @property
    def build_id(self) -> str | None:
        """The build that it came with; None of a live collection."""
        return None if self._opened is None else self._opened.identity.build_id

    @property
    def listing(self) -> Kind:
        """The elements that say everything: a hash's fields, a sorted set's ranks."""
        return Kind.HASH_FIELD if self.type is ValueType.HASH else Kind.ZSET_RANK

    def fields(self, names: list[bytes]) -> list[bytes | None]:
        """The values of a hash's fields."""
        head = self.head(Kind.HASH_FIELD)
        return self._elements.get_many([head + name for name in names])

    def score(self, member: bytes) -> float | None:
        """The score of a sorted set's member."""
        raw = self._elements.get(self.head(Kind.ZSET_MEMBER) + member)
        return None if raw is None else parse_element_score(raw)

    def scores(self, members: list[bytes]) -> list[float | None]:
        """The scores of some members of a sorted set; None for those that are not there."""
        head = self.head(Kind.ZSET_MEMBER)
        found = self._elements.get_many([head + member for member in members])
        return [None if raw is None else parse_element_score(raw) for raw in found]

    def walk(self, kind: Kind, start: bytes = b"", *, backwards: bool = False) -> Iterator[Entry]:
        """Elements of a kind from `start` on, in order; `backwards`, those below `start` (empty: all), the last one first."""
        if backwards:
            yield from self._walk_back(kind, start)
            return
        memory = self._memory(kind)
        at_edge = memory is not None and start <= memory.low
        head = self.head(kind)
        for key, value in self._entries(head, head + (memory.low if memory and at_edge else start)):
            if not key.startswith(head):
                return
            detail = key[len(head) :]
            if memory and at_edge:
                memory.low, at_edge = detail, False
            yield detail, value

    def _walk_back(self, kind: Kind, start: bytes) -> Iterator[Entry]:
        memory = self._memory(kind)
        at_edge = memory is not None and (not start or (memory.high != b"" and start >= memory.high))
        start = memory.high if memory and at_edge else start
        head = self.head(kind)
        above = head + start if start else (int.from_bytes(head) + 1).to_bytes(len(head))
        for key, value in self._entries(head, above, backwards=True):
            if key >= above:
                continue
            if not key.startswith(head):
                return
            detail = key[len(head) :]
            if memory and at_edge:
                memory.high, at_edge = detail + b"\x00", False
            yield detail, value

    def _entries(self, head: bytes, key: bytes, *, backwards: bool = False) -> Iterator[Entry]:
        if isinstance(self._source, OpenVersion):
            return self._source.database.entries_from(key, backwards=backwards)
        return self._source.entries_from(key, backwards=backwards, head=head)

    def _memory(self, kind: Kind) -> RankMemory | None:
        """What is remembered of the ranks of a live set."""
        if kind is not Kind.ZSET_RANK or isinstance(self._source, OpenVersion):
            return None
        return self._source.ranks.of(self.user_key, self.version)

    def checkpoints(self) -> list[bytes]:
        """Where every CHECKPOINT_STEP-th listed element stands, as far as it is known; to be added to while walking from the last one."""
        kind = self.listing
        if self._opened is not None:
            return self._opened.checkpoints_of(kind, self.user_key, CHECKPOINTED_MAX)
        memory = self._memory(kind)
        return [] if memory is None else memory.checkpoints

    async def between(self, first: int, end: int) -> list[Entry]:
        """The listed elements from place `first` to before `end`, 0-based."""
        kind = self.listing
        known = self.checkpoints()
        at = min(first // CHECKPOINT_STEP, len(known))  # the beginning is the first one, and is not kept
        if self.count - end < first - at * CHECKPOINT_STEP:
            found = await gathered(self.walk(kind, backwards=True), self.count - end, end - first)
            return found[::-1]
        entries = self.walk(kind, known[at - 1] if at else b"")
        found = []
        for place, entry in enumerate(islice(entries, end - at * CHECKPOINT_STEP), at * CHECKPOINT_STEP):
            if place == (len(known) + 1) * CHECKPOINT_STEP:
                known.append(entry[0])
            if place >= first:
                found.append(entry)
            if place % STEPS_PER_TURN == STEPS_PER_TURN - 1:
                await asyncio.sleep(0)
        return found

    def head(self, kind: Kind) -> bytes:
        """What the keys of all elements of a kind start with."""
        return element_head(kind, self.user_key, self.version, self.slot)


async def gathered(entries: Iterator[Walked], offset: int = 0, count: int = -1) -> list[Walked]:
    """`count` entries (negative: all) after `offset` others."""
    found = []
    for step, entry in enumerate(entries if count < 0 else islice(entries, min(offset + count, sys.maxsize))):
        if step >= offset:
            found.append(entry)
        if step % STEPS_PER_TURN == STEPS_PER_TURN - 1:
            await asyncio.sleep(0)
    return found


def ranked(entry: Entry) -> tuple[bytes, float]:
    """Member and score of a rank element."""
    detail, mark = entry
    return detail[SCORE_BYTES:], -0.0 if mark == NEGATIVE_ZERO else parse_sortable_score(detail[:SCORE_BYTES])
