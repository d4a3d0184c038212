"""Big collections of versions: read element by element, never as a whole unless a client asks for all.

Rules:
- Elements come from the database that their meta value came from; `BigCollection` holds it open (`OpenVersion.pins`) while it is used as a
  context manager, so that an answer over several turns of the event loop is of one version.
- Nothing holds the loop for more than STEPS_PER_TURN entries.
- A place by rank is found from the nearest end, or from checkpoints: every version remembers every CHECKPOINT_STEP-th entry that it was
  walked past, for the collections read last. Versions never change, so a checkpoint is never wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from pipeline.format.errors import FormatError
from pipeline.format.keys import SCORE_BYTES, Kind, element_head, parse_sortable_score
from pipeline.format.values import BigValue, ValueType, decode_value, parse_element_score
from server.storage.datasets import OpenVersion

STEPS_PER_TURN = 2_048  # about 1 ms
CHECKPOINT_STEP = 1_024  # entries between two checkpoints: a place is found within that many steps
CHECKPOINTED_MAX = 256  # collections per version whose checkpoints are kept: 2,000 of some 50 bytes for two million members

Entry = tuple[bytes, bytes]
"""What stands behind the head of an element key, and the value under it."""


class BigCollection:
    """One big collection of one version. A context manager while it is read over several turns."""

    def __init__(self, source: OpenVersion, unpin: Callable[[OpenVersion], None], user_key: bytes, slot: int, raw: bytes) -> None:
        value = decode_value(raw)
        if not isinstance(value, BigValue):
            raise FormatError(f"meta value {raw[:16]!r}... is no big collection's")
        self.count = value.count
        self.type = value.type
        self.build_id = source.identity.build_id
        self._element_version = value.version
        self._source = source
        self._database = source.database
        self._unpin = unpin
        self._user_key = user_key
        self._slot = slot

    def __enter__(self) -> Self:
        self._source.pins += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._unpin(self._source)

    @property
    def listing(self) -> Kind:
        """The elements that say everything: a hash's fields, a sorted set's ranks."""
        return Kind.HASH_FIELD if self.type is ValueType.HASH else Kind.ZSET_RANK

    def fields(self, names: list[bytes]) -> list[bytes | None]:
        """The values of a hash's fields."""
        head = self._head(Kind.HASH_FIELD)
        return self._database.get_many([head + name for name in names])

    def score(self, member: bytes) -> float | None:
        """The score of a sorted set's member."""
        raw = self._database.get(self._head(Kind.ZSET_MEMBER) + member)
        return None if raw is None else parse_element_score(raw)

    def walk(self, kind: Kind, start: bytes = b"", *, backwards: bool = False) -> Iterator[Entry]:
        """Elements of a kind from `start` on, in order; `backwards`, those below `start` (empty: all), the last one first."""
        head = self._head(kind)
        if not backwards:
            entries = self._database.entries_from(head + start)
        else:
            above = head + start if start else (int.from_bytes(head) + 1).to_bytes(len(head))
            entries = self._database.entries_from(above, backwards=True)
        for key, value in entries:
            if backwards and key >= above:
                continue
            if not key.startswith(head):
                return
            yield key[len(head) :], value

    async def between(self, first: int, end: int) -> list[Entry]:
        """The listed elements from place `first` to before `end`, 0-based."""
        kind = self.listing
        known = self._source.checkpoints_of(kind, self._user_key, CHECKPOINTED_MAX)
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
            if place % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)
        return found

    def _head(self, kind: Kind) -> bytes:
        return element_head(kind, self._user_key, self._element_version, self._slot)


async def gathered(entries: Iterator[Entry], offset: int = 0, count: int = -1) -> list[Entry]:
    """`count` entries (negative: all) after `offset` others."""
    found = []
    for step, entry in enumerate(entries if count < 0 else islice(entries, offset + count)):
        if step >= offset:
            found.append(entry)
        if step % STEPS_PER_TURN == STEPS_PER_TURN - 1:
            await asyncio.sleep(0)
    return found


def ranked(detail: bytes) -> tuple[bytes, float]:
    """Member and score of a rank element."""
    return detail[SCORE_BYTES:], parse_sortable_score(detail[:SCORE_BYTES])
