"""Random fields of big hashes: few by draws from between marks, many by one walk.

Rules:
- Marks cut a hash into stretches of about `step` fields. A draw takes any stretch, and in it any of 2 * `step` places; a place beyond the
  end of the stretch is no draw, and the next one is made. So every field is drawn with the same chance, however unevenly the marks lie,
  as long as no stretch holds more than 2 * `step` fields. One that is met with more is cut; until then it is drawn from too rarely.
- Marks are only borders, so they are never wrong for a hash that changes. They are made by a walk along all of it, which also answers the
  command that found none, and again when the count has halved or doubled since.
- A walk sees the hash as it was at its beginning. Draws of several turns need one that does not change meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from itertools import islice, takewhile
from random import Random

from pipeline.format.keys import Kind
from server.storage.big import STEPS_PER_TURN, BigCollection, Entry

STEP_MIN = 64  # fields between two marks: a draw takes two tries, about, and walks over about as many in each
MARKS_PER_HASH_MAX = 16_384  # beyond, the steps become wider
MARK_BYTES_MAX = 16 << 20  # of all marks; those of the hashes asked last stay
MARK_OVERHEAD_BYTES = 64  # of a bytes object and its place in a list
DRAW_STEPS = 4 * STEP_MIN  # what a draw costs, about, in fields walked
_TRIES_MAX = 1_000  # a draw takes two; so many mean that hardly any field is left


@dataclass(slots=True)
class _Marks:
    fields: list[bytes]
    count: int
    step: int
    size: int


class Picks:
    """Marks of the hashes of one shard, by what their element keys start with."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._marks: OrderedDict[bytes, _Marks] = OrderedDict()
        self._size = 0

    def ready(self, big: BigCollection) -> bool:
        """Whether draws can be made; otherwise a walk makes the marks."""
        marks = self._marks.get(big.head(Kind.HASH_FIELD))
        return marks is not None and marks.count < 2 * big.count < 4 * marks.count

    def draw(self, big: BigCollection) -> Entry | None:
        """Any field of a hash that is `ready`; None if that takes a walk after all."""
        head = big.head(Kind.HASH_FIELD)
        for _ in range(_TRIES_MAX):
            marks = self._marks.get(head)
            if marks is None:  # cutting made them too many
                return None
            self._marks.move_to_end(head)
            at = self.random.randrange(len(marks.fields) + 1)
            end = marks.fields[at] if at < len(marks.fields) else None
            found = _stretch(big, marks.fields[at - 1] if at else b"", end, 2 * marks.step + 1)
            if len(found) > 2 * marks.step:
                marks.fields.insert(at, found[marks.step][0])
                self._account(marks, len(found[marks.step][0]) + MARK_OVERHEAD_BYTES)
                continue
            place = self.random.randrange(2 * marks.step)
            if place < len(found):
                return found[place]
        return None

    async def walked(self, big: BigCollection, places: Container[int]) -> dict[int, Entry]:
        """The fields at some places, in turns, by a walk along all."""
        step = max(STEP_MIN, big.count // MARKS_PER_HASH_MAX)
        found, fields = {}, []
        with big:
            for place, entry in enumerate(big.walk(Kind.HASH_FIELD)):
                if place in places:
                    found[place] = entry
                if place % step == 0 and place:
                    fields.append(entry[0])
                if place % STEPS_PER_TURN == STEPS_PER_TURN - 1:
                    await asyncio.sleep(0)
        self._keep(big.head(Kind.HASH_FIELD), _Marks(fields, big.count, step, 0))
        return found

    def _keep(self, head: bytes, marks: _Marks) -> None:
        before = self._marks.pop(head, None)
        if before is not None:
            self._size -= before.size
        self._marks[head] = marks
        self._account(marks, len(head) + sum(len(field) + MARK_OVERHEAD_BYTES for field in marks.fields))

    def _account(self, marks: _Marks, size: int) -> None:
        marks.size += size
        self._size += size
        while self._size > MARK_BYTES_MAX and self._marks:
            _, oldest = self._marks.popitem(last=False)
            self._size -= oldest.size


def _stretch(big: BigCollection, start: bytes, end: bytes | None, most: int) -> list[Entry]:
    entries = big.walk(Kind.HASH_FIELD, start)
    return list(islice(entries if end is None else takewhile(lambda entry: entry[0] < end, entries), most))
