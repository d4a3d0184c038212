"""The keyspace as commands see it: meta values by user key, expired ones left out, whatever database they come from.

Rules:
- Each key has exactly one database: its dataset's active version, or the live database (datasets.py decides).
- A value with a flag that this software can't read is an error, never ignored. A compressed string is unpacked here, once for all readers.
- The caller checks that nobody writes below a dataset's prefix (executor.py does, for all commands).
- Time is passed in: `clock` gives milliseconds since the epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from pipeline.format.errors import FormatError
from pipeline.format.keys import USER_KEY_BYTES_MAX, meta_key
from pipeline.format.slots import SLOT_COUNT
from pipeline.format.values import Flag, decompressed, expiry_ms
from server.resp.replies import ReplyError
from server.resp.texts import KEY_TOO_LONG
from server.storage.datasets import DatasetIndex, OpenVersion
from server.storage.rocks import Database

Clock = Callable[[], int]

META_HEADS = tuple(meta_key(b"", slot) for slot in range(SLOT_COUNT))  # so that a key is made by one concatenation

_UNREADABLE = 0xFF & ~int(Flag.EXPIRES | Flag.LZ4 | Flag.BIG)  # by int: an IntFlag's complement drops unnamed bits


class Engine:
    """What clients read and write."""

    def __init__(self, live: Database, index: DatasetIndex, clock: Clock) -> None:
        self.live = live
        self.index = index
        self.clock = clock
        self._prefixes = index.prefixes  # the same lists for ever: the index changes them in place
        self._ordered = index.ordered
        self._live_get = live.get

    def read(self, key: bytes, slot: int) -> bytes | None:
        """The meta value of a key; None if it is absent or expired.

        Raises:
            ReplyError: its dataset can't be read.
            FormatError: the value was written by newer software.
        """
        raw = self._fetch(key, slot)
        if raw is not None and raw[1]:
            return self._current(raw)
        return raw

    def version_of(self, key: bytes) -> OpenVersion | None:
        """The version that a key is read from in this turn of the loop; None if it is a live key."""
        owner = self.index.owner(key)
        return owner.active if owner else None

    def read_many(self, keys: Sequence[bytes], slot: int) -> list[bytes | None]:
        """As `read`, for keys of one slot; live keys by one MultiGet if no dataset owns any of them."""
        if len(keys) == 1 or any(self.index.owner(key) for key in keys):
            return [self.read(key, slot) for key in keys]
        head = META_HEADS[slot]
        values = self.live.get_many([head + key for key in keys])
        return [self._current(raw) if raw is not None and raw[1] else raw for raw in values]

    def write(self, key: bytes, slot: int, raw: bytes) -> None:
        """Replace the meta value of a live key.

        Raises:
            ReplyError: the key is longer than this server stores.
        """
        if len(key) > USER_KEY_BYTES_MAX:
            raise ReplyError(KEY_TOO_LONG)
        self.live.put(META_HEADS[slot] + key, raw)

    def delete(self, key: bytes, slot: int) -> bool:
        """Remove a live key; whether there was one that had not expired."""
        if self.read(key, slot) is None:
            return False
        self.live.delete(META_HEADS[slot] + key)
        return True

    def _fetch(self, key: bytes, slot: int) -> bytes | None:
        place = bisect_right(self._prefixes, key) - 1
        if place >= 0 and key.startswith(self._prefixes[place]):
            return self._ordered[place].get(META_HEADS[slot] + key)
        return self._live_get(META_HEADS[slot] + key)

    def _current(self, raw: bytes) -> bytes | None:
        if raw[1] & _UNREADABLE:
            raise FormatError(f"meta value {raw[:16]!r}... has flags 0x{raw[1]:02x}, which this server can't read")
        expiry = expiry_ms(raw)
        if expiry is not None and expiry <= self.clock():
            return None
        return decompressed(raw) if raw[1] & Flag.LZ4 else raw


class PinnedEngine(Engine):
    """What a connection with pins reads: some datasets from versions of its own, everything else as everybody."""

    def __init__(self, engine: Engine, pins: dict[str, OpenVersion]) -> None:
        super().__init__(engine.live, engine.index, engine.clock)
        self._pins = pins

    def version_of(self, key: bytes) -> OpenVersion | None:
        """As for everybody, but for pins."""
        owner = self.index.owner(key)
        pinned = owner and self._pins.get(owner.pointer.dataset)
        return pinned or super().version_of(key)

    def _fetch(self, key: bytes, slot: int) -> bytes | None:
        owner = self.index.owner(key)
        pinned = owner and self._pins.get(owner.pointer.dataset)
        if pinned:
            return pinned.database.get(META_HEADS[slot] + key)
        return super()._fetch(key, slot)
