"""Meta values by user key: from the hot values, or from the one database that has the key.

Rules:
- Each key has exactly one database: its dataset's active version, or the live database (datasets.py decides).
- Of keys that are looked for at once, what the hot values lack is asked of each database at once, by MultiGet; of a dataset that may not
  have the key's slot, one by one.
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
Fit = Callable[[bytes | None], bytes | None]
"""Makes a value that comes from a database fit to be kept and read; ABSENT of None, None of what it declines."""

META_HEADS = tuple(meta_key(b"", slot) for slot in range(SLOT_COUNT))  # so that a key is made by one concatenation
EXPIRED_SEEN_MAX = 1_000  # keys that reads found expired, whose removal is asked for; more are found by the walk that looks for them
MULTIGET_MAX = 64  # keys at a time: more gain nothing
AHEAD_MIN = 2  # of one key, a read costs less

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


def usable_or_none(raw: bytes | None) -> bytes | None:
    """As `usable`; None for what can't be read."""
    try:
        return usable(raw)
    except FormatError:
        return None


def usable_as_it_is(raw: bytes | None) -> bytes | None:
    """As `usable`; None for what would have to be unpacked, and what can't be read."""
    if raw is None:
        return ABSENT
    return None if raw[1] & (UNREADABLE_FLAGS | _LZ4) else raw


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
        try:
            found = self.values([*keys], key_slots(keys))
        except Exception:
            self.forget_ahead()  # what was found all the same: nobody asks again
            raise
        self.count(len(found), found.count(None))
        return found

    def values(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        """As `read` of each, but that nothing is counted as read: see `count`. The keys have these slots.

        Raises:
            ReplyError, NodeError, FormatError: one of them can't be read. `read` finds what was found of the others until `forget_ahead`.
        """
        found = list(map(self.cache.young.get, keys))
        if not all(found):
            self._complete(found, keys, slots, usable_or_none)
            if None in found:
                self._complete_singly(found, keys, slots)
        return [raw if raw and not raw[1] & _EXPIRES else self._unless_expired(key, raw) for key, raw in zip(keys, found, strict=True)]

    def keep_ahead(self, keys: list[bytes], values: list[bytes | None]) -> None:
        """Values that `values` gave, and that were not used: `read` finds them until `forget_ahead`."""
        self._ahead.update((key, raw or ABSENT) for key, raw in zip(keys, values, strict=True))

    def count(self, reads: int, missing: int) -> None:
        """So many keys were looked for, and so many of them not found."""
        self.reads += reads
        self.missing += missing

    def fetch_ahead(self, keys: list[bytes]) -> None:
        """Fetch what the hot values lack of some keys, so that `read` finds it until `forget_ahead`. What can't be read, or has to be
        unpacked, is left to the command that asks for it.
        """
        found = list(map(self.cache.young.get, keys))
        if found.count(None) < AHEAD_MIN:
            return
        try:
            self._complete(found, keys, key_slots(keys), usable_as_it_is)
        except NodeError:
            return  # one block that can't be read is no reason to fail all
        self._keep(keys, found)

    def forget_ahead(self) -> None:
        """The run that values were fetched for is over."""
        if self._ahead:
            self._ahead.clear()

    def _keep(self, keys: list[bytes], found: list[bytes | None]) -> None:
        self._ahead.update((key, raw) for key, raw in zip(keys, found, strict=True) if raw is not None)

    def _complete(self, found: list[bytes | None], keys: list[bytes], slots: list[int], fit: Fit) -> None:
        """Where the younger hot values had None, put what is found elsewhere, by MultiGet. None stays where only `_fetch` can read the key,
        or say why it can't.
        """
        places = self.cache.recall(found, keys)
        if self._ahead:
            for place in places:
                found[place] = self._ahead.get(keys[place])
            places = [place for place in places if found[place] is None]
        if not places:
            return
        if len(places) < len(keys):
            keys, slots = [keys[place] for place in places], [slots[place] for place in places]
        for place, raw in zip(places, self._fetch_many(keys, slots, fit), strict=True):
            found[place] = raw

    def _complete_singly(self, found: list[bytes | None], keys: list[bytes], slots: list[int]) -> None:
        fetched: dict[bytes, bytes] = {}  # a key may come twice
        try:
            for place, raw in enumerate(found):
                if raw is None:
                    key = keys[place]
                    if key not in fetched:
                        fetched[key] = self._fetch(key, slots[place])
                    found[place] = fetched[key]
        except Exception:
            self._keep(keys, found)
            raise

    def _fetch_many(self, keys: list[bytes], slots: list[int], fit: Fit) -> list[bytes | None]:
        homes = self._homes(keys)
        if homes.count(homes[0]) == len(homes):  # as it is most often
            return self._multiget(homes[0], keys, slots, fit)
        found: list[bytes | None] = [None] * len(keys)
        by_home: dict[int, list[int]] = {}
        for place, home in enumerate(homes):
            by_home.setdefault(home, []).append(place)
        for home, places in by_home.items():
            raws = self._multiget(home, [keys[place] for place in places], [slots[place] for place in places], fit)
            for place, raw in zip(places, raws, strict=True):
                found[place] = raw
        return found

    def _multiget(self, home: int, keys: list[bytes], slots: list[int], fit: Fit) -> list[bytes | None]:
        """What `fit` makes of the values; all None where keys are read one by one."""
        get_many = self._get_many_of(home)
        if get_many is None:
            return [None] * len(keys)
        found: list[bytes | None] = []
        for first in range(0, len(keys), MULTIGET_MAX):
            some = keys[first : first + MULTIGET_MAX]
            heads = [META_HEADS[slot] + key for slot, key in zip(slots[first : first + MULTIGET_MAX], some, strict=True)]
            raws = [raw if raw and not raw[1] else fit(raw) for raw in get_many(heads)]
            self.fetches += len(some)
            if self.cache.admits(self.reads, self.fetches):
                for key, raw in zip(some, raws, strict=True):
                    if raw is not None:
                        self.cache.put(key, raw)
            found += raws
        return found

    def _get_many_of(self, home: int) -> Callable[[list[bytes]], list[bytes | None]] | None:
        if home < 0:
            return self.live.get_many
        active = self._ordered[home].whole
        return None if active is None else active.database.get_many

    def _homes(self, keys: list[bytes]) -> list[int]:
        """As `_home` of each; if all are the first one's dataset's, without a call for each."""
        home = self._home(keys[0])
        if home >= 0:
            prefix = self._prefixes[home]
            if all([key.startswith(prefix) for key in keys]):  # noqa: C419 -- a generator takes twice as long
                return [home] * len(keys)
        return list(map(self._home, keys))

    def _home(self, key: bytes) -> int:
        """Where in the index the dataset of a key stands; negative if it is a live key."""
        place = bisect_right(self._prefixes, key) - 1
        return place if place >= 0 and key.startswith(self._prefixes[place]) else -1

    def _fetch(self, key: bytes, slot: int) -> bytes:
        """The value from wherever it is, fit to be kept; ABSENT if it is nowhere."""
        raw = self.cache.from_old(key)
        if raw is not None:
            return raw
        self.fetches += 1
        home = self._home(key)
        raw = usable((self.live.get if home < 0 else self._ordered[home].get)(META_HEADS[slot] + key))
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
