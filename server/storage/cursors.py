"""Cursors of scans over what changes: a bounded table from the number that a client holds to the position that it stands for.

Rules:
- A position is bytes of its owner's making; it begins with what it is a position in, and whoever finds one checks that.
- The same position has the same number as long as it is kept, so a page that a client asks for twice costs one entry.
- A number that is not known (any more) is answered by None: the scan starts its current source again, so it may repeat, and misses nothing.
- Numbers of another process are never known: after a restart, an old one must not stand for a new position.

::

    number := 01(2 bits) process(30 bits) count(32 bits)      below 2**63, above every place in a version (server/commands/scanning.py)
"""

from __future__ import annotations

from collections import OrderedDict

POSITIONS_MAX = 16_384  # scans under way at the same time, about: each holds the last position, and its earlier ones are the first to go
POSITION_BYTES_MAX = 8 << 20  # of all positions: keys may be long

_MARK = 1 << 62
PROCESS_BITS = 30  # of what `process` may be; more is cut off
_COUNT_BITS = 32


class Cursors:
    """The positions of one shard's scans, those used last. `process` is a number that no other process of this shard is likely to get."""

    __slots__ = ("_bytes", "_count", "_first", "_numbers", "_positions")

    def __init__(self, process: int) -> None:
        self._first = _MARK | (process % (1 << PROCESS_BITS)) << _COUNT_BITS
        self._count = 0
        self._positions: OrderedDict[int, bytes] = OrderedDict()
        self._numbers: dict[bytes, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._positions)

    def keep(self, position: bytes) -> int:
        """The number to give to a client, never 0."""
        number = self._numbers.get(position)
        if number is not None:
            self._positions.move_to_end(number)
            return number
        self._count = (self._count + 1) % (1 << _COUNT_BITS)
        number = self._first | self._count
        self._positions[number] = position
        self._numbers[position] = number
        self._bytes += len(position)
        while len(self._positions) > 1 and (len(self._positions) > POSITIONS_MAX or self._bytes > POSITION_BYTES_MAX):
            _, oldest = self._positions.popitem(last=False)
            del self._numbers[oldest]
            self._bytes -= len(oldest)
        return number

    def find(self, number: int) -> bytes | None:
        """The position that a number stands for; None if it is too old, or was never given out by this process."""
        position = self._positions.get(number)
        if position is not None:
            self._positions.move_to_end(number)
        return position
