"""Meta values by user key: from the hot values, or from the one database that has the key.

Rules:
- Each key has exactly one database: its dataset's active version, or the live database (datasets.py decides).
- What is looked for at once is asked of each database at once, by one MultiGet of what the hot values lack.
- A value with a flag that this software can't read is an error, never ignored. A compressed string is unpacked here, once for all readers.
- What has expired is left out; time is passed in: `clock` gives milliseconds since the epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.format.errors import FormatError, NodeError
from pipeline.format.keys import meta_key
from pipeline.format.slots import SLOT_COUNT, key_slots
from pipeline.format.values import Flag, decompressed, expiry_ms
from server.storage.datasets import DatasetIndex
from server.storage.hotcache import ABSENT, HotCache
from server.storage.live import LiveStore

Clock = Callable[[], int]

META_HEADS = tuple(meta_key(b"", slot) for slot in range(SLOT_COUNT))  # so that a key is made by one concatenation
EXPIRED_SEEN_MAX = 1_000  # keys that reads found expired, whose removal is asked for; more are found by the walk that looks for them
FETCHED_AT_ONCE_MAX = 64  # keys of one MultiGet: more gain nothing, and hold the loop
FETCHED_AT_ONCE_MIN = 2

_EXPIRES, _LZ4 = int(Flag.EXPIRES), int(Flag.LZ4)  # an IntFlag's own operators cost a microsecond
UNREADABLE_FLAGS = 0xFF & ~(_EXPIRES | _LZ4 | int(Flag.BIG))


def usable(raw: bytes | None) -> bytes:
    """A value as it comes from a database, fit to be kept and read; ABSENT for None.

    Raises:
        FormatError: it was written by newer software.
    """
    if raw is None:
        return ABSENT
    if raw[1]:
        if raw[1] & UNREADABLE_FLAGS:
            raise FormatError(f"meta value {raw[:16]!r}... has flags 0x{raw[1]:02x}, which this server can't read")
        if raw[1] & _LZ4:
            return decompressed(raw)
    return raw


class Lookup:
    """`reads` are looks for a key, `missing` those that found none, `fetches` those that the hot values did not answer. `expired_seen`
    are keys that were found expired.
    """

    def __init__(self, live: LiveStore, index: DatasetIndex, clock: Clock, cache: HotCache) -> None:
        self.live = live
        self.index = index
        self.clock = clock
        self.cache = cache
        self.reads = 0
        self.missing = 0
        self.fetches = 0
        self.expired_seen: deque[bytes] = deque(maxlen=EXPIRED_SEEN_MAX)
        self._ahead: dict[bytes, bytes] = {}  # fetched for this run, whether the cache keeps it or not
        self._prefixes = index.prefixes  # the same lists for ever: the index changes them in place
        self._ordered = index.ordered

    def read(self, key: bytes, slot: int) -> bytes | None:
        """The meta value of a key; None if it is absent or expired.

        Raises:
            ReplyError: its dataset can't be read.
            NodeError: its database can't be.
            FormatError: the value was written by newer software.
        """
        self.reads += 1
        raw = self.cache.young.get(key)
        if raw is None:
            raw = self._ahead.get(key)
            if raw is None:
                raw = self._fetch(key, slot)
        if not raw:
            self.missing += 1
            return None
        if raw[1] & _EXPIRES and self._unless_expired(key, raw) is None:
            self.missing += 1
            return None
        return raw

    def read_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `read` of each."""
        found = self.values([*keys], key_slots(keys))
        self.count(len(found), found.count(None))
        return found

    def values(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        """As `read` of each, but that nothing is counted as read: see `count`. The keys have these slots.

        Raises:
            ReplyError, NodeError, FormatError: one of them can't be read.
        """
        found = list(map(self.cache.young.get, keys))
        if not all(found):
            self._complete(found, keys, slots)
            if None in found:
                found = [self._fetch(key, slot) if raw is None else raw for key, slot, raw in zip(keys, slots, found, strict=True)]
        return [raw if raw and not raw[1] & _EXPIRES else self._unless_expired(key, raw) for key, raw in zip(keys, found, strict=True)]

    def keep_ahead(self, keys: list[bytes], values: list[bytes | None]) -> None:
        """Values that `values` gave, and that were not used: `read` finds them until `forget_ahead`."""
        self._ahead.update((key, raw or ABSENT) for key, raw in zip(keys, values, strict=True))

    def count(self, reads: int, missing: int) -> None:
        """So many keys were looked for, and so many of them not found."""
        self.reads += reads
        self.missing += missing

    def fetch_ahead(self, keys: list[bytes]) -> None:
        """Fetch what the hot values lack of some keys, so that `read` finds it until `forget_ahead`; what fails is left to `read`."""
        found = list(map(self.cache.young.get, keys))
        if found.count(None) < FETCHED_AT_ONCE_MIN:
            return
        try:
            self._complete(found, keys, key_slots(keys))
        except (NodeError, FormatError):
            return  # one that can't be read is no reason to fail all: the command that needs it says so
        self._ahead.update((key, raw) for key, raw in zip(keys, found, strict=True) if raw is not None)

    def forget_ahead(self) -> None:
        """The run that values were fetched for is over."""
        if self._ahead:
            self._ahead.clear()

    def _complete(self, found: list[bytes | None], keys: list[bytes], slots: list[int]) -> None:
        """Put values where the younger hot ones had None. What stays None can be read one by one alone, or says then why it can't."""
        places = self.cache.recall(found, keys)
        if self._ahead:
            for place in places:
                found[place] = self._ahead.get(keys[place])
            places = [place for place in places if found[place] is None]
        if not places:
            return
        if len(places) < len(keys):
            keys, slots = [keys[place] for place in places], [slots[place] for place in places]
        for place, raw in zip(places, self._from_databases(keys, slots), strict=True):
            found[place] = raw

    def _from_databases(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        owners = self._owners(keys)
        if owners.count(owners[0]) == len(owners):  # as it is most often
            return self._from_database(owners[0], keys, slots)
        found: list[bytes | None] = [None] * len(keys)
        for owner in set(owners):
            places = [place for place, one in enumerate(owners) if one == owner]
            raws = self._from_database(owner, [keys[place] for place in places], [slots[place] for place in places])
            for place, raw in zip(places, raws, strict=True):
                found[place] = raw
        return found

    def _from_database(self, owner: int, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        """Values by MultiGet, fit to be kept; all None where that can't be."""
        get_many = self._get_many_of(owner)
        if get_many is None:
            return [None] * len(keys)
        found: list[bytes | None] = []
        for first in range(0, len(keys), FETCHED_AT_ONCE_MAX):
            some = keys[first : first + FETCHED_AT_ONCE_MAX]
            heads = [META_HEADS[slot] + key for slot, key in zip(slots[first : first + FETCHED_AT_ONCE_MAX], some, strict=True)]
            raws = [raw if raw and not raw[1] else usable(raw) for raw in get_many(heads)]
            self.fetches += len(some)
            if self.cache.admits(self.reads, self.fetches):
                for key, raw in zip(some, raws, strict=True):
                    self.cache.put(key, raw)
            found += raws
        return found

    def _get_many_of(self, owner: int) -> Callable[[list[bytes]], list[bytes | None]] | None:
        if owner < 0:
            return self.live.get_many
        active = self._ordered[owner].whole
        return None if active is None else active.database.get_many

    def _owners(self, keys: list[bytes]) -> list[int]:
        """As `_owner` of each; if all are the first one's dataset's, without a call for each."""
        owner = self._owner(keys[0])
        if owner >= 0:
            prefix = self._prefixes[owner]
            if all([key.startswith(prefix) for key in keys]):  # noqa: C419 -- a generator takes twice as long
                return [owner] * len(keys)
        return list(map(self._owner, keys))

    def _owner(self, key: bytes) -> int:
        """Where in the index the dataset of a key stands; negative if none owns it."""
        place = bisect_right(self._prefixes, key) - 1
        return place if place >= 0 and key.startswith(self._prefixes[place]) else -1

    def _fetch(self, key: bytes, slot: int) -> bytes:
        """The value from wherever it is, fit to be kept; ABSENT if it is nowhere."""
        raw = self.cache.from_old(key)
        if raw is not None:
            return raw
        self.fetches += 1
        owner = self._owner(key)
        raw = usable((self.live.get if owner < 0 else self._ordered[owner].get)(META_HEADS[slot] + key))
        if self.cache.admits(self.reads, self.fetches):
            self.cache.put(key, raw)
        return raw

    def _unless_expired(self, key: bytes, raw: bytes | None) -> bytes | None:
        if not raw:
            return None
        if raw[1] & _EXPIRES and (expiry_ms(raw) or 0) <= self.clock():
            self.expired_seen.append(key)
            return None
        return raw
