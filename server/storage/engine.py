"""The keyspace as commands see it: meta values by user key, expired ones left out, whatever database they come from.

Rules:
- Each key has exactly one database: its dataset's active version, or the live database (datasets.py decides).
- A value with a flag that this software can't read is an error, never ignored. A compressed string is unpacked here, once for all readers.
- The caller checks that nobody writes below a dataset's prefix (executor.py does, for all commands), and commits what was written.
- Time is passed in: `clock` gives milliseconds since the epoch.
- Whoever changes a key tells the hot values and those who watch it: `write`, `delete` and `touched` do, and nothing else changes keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.format.errors import FormatError, NodeError
from pipeline.format.keys import USER_KEY_BYTES_MAX, meta_key
from pipeline.format.slots import SLOT_COUNT, key_slot
from pipeline.format.values import Flag, decompressed, expiry_ms
from server.resp.replies import ReplyError
from server.resp.texts import KEY_TOO_LONG
from server.storage.datasets import Dataset, DatasetIndex, OpenVersion
from server.storage.hotcache import ABSENT, HotCache
from server.storage.live import LiveStore

Clock = Callable[[], int]

Abandoned = tuple[bytes, int, bytes]
"""Key, slot and meta value of a big collection that was removed, whose elements are still there."""

META_HEADS = tuple(meta_key(b"", slot) for slot in range(SLOT_COUNT))  # so that a key is made by one concatenation
ABANDONED_MAX = 10_000  # removed big collections that the sweep is told of; more it finds by itself, a little later
EXPIRED_SEEN_MAX = 1_000  # keys that reads found expired, whose removal is asked for; more are found by the walk that looks for them
AHEAD_KEYS_MAX = 64  # of one MultiGet: more gain nothing, and hold the loop

_VERSIONS_PER_MS_BITS = 20
_EXPIRES, _LZ4, _BIG = int(Flag.EXPIRES), int(Flag.LZ4), int(Flag.BIG)  # an IntFlag's own operators cost a microsecond
_UNREADABLE = 0xFF & ~(_EXPIRES | _LZ4 | _BIG)
_RAISING = _UNREADABLE | _LZ4  # what is not as it is to be read, and may fail to become so


def usable(raw: bytes | None) -> bytes:
    """A value as it comes from a database, fit to be kept and read; ABSENT for None.

    Raises:
        FormatError: it was written by newer software.
    """
    if raw is None:
        return ABSENT
    if raw[1]:
        if raw[1] & _UNREADABLE:
            raise FormatError(f"meta value {raw[:16]!r}... has flags 0x{raw[1]:02x}, which this server can't read")
        if raw[1] & _LZ4:
            return decompressed(raw)
    return raw


class Engine:
    """What clients read and write. `reads` are looks for a key, `missing` those that found none, `fetches` those that the hot values did
    not answer, `expired_keys` live keys removed because their time had come. `constructing` names collections whose elements are being
    written before their meta value is.
    """

    def __init__(self, live: LiveStore, index: DatasetIndex, clock: Clock, cache: HotCache) -> None:
        self.live = live
        self.index = index
        self.clock = clock
        self.cache = cache
        self.reads = 0
        self.missing = 0
        self.fetches = 0
        self.expired_keys = 0
        self.abandoned: deque[Abandoned] = deque(maxlen=ABANDONED_MAX)
        self.expired_seen: deque[bytes] = deque(maxlen=EXPIRED_SEEN_MAX)
        self.constructing: set[tuple[bytes, int]] = set()
        self._last_element_version = 0
        self.on_change: Callable[[bytes | None], None] | None = None  # told every changed key, None for all; see watching.py
        self._ahead: dict[bytes, bytes] = {}  # fetched for this run, and not kept in the cache
        self._ranks = live.ranks.by_key
        self._prefixes = index.prefixes  # the same lists for ever: the index changes them in place
        self._ordered = index.ordered
        index.on_change = self.dataset_changed

    def read(self, key: bytes, slot: int) -> bytes | None:
        """The meta value of a key; None if it is absent or expired.

        Raises:
            ReplyError: its dataset can't be read.
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
        if raw[1] & _EXPIRES and (expiry_ms(raw) or 0) <= self.clock():
            self.missing += 1
            self.expired_seen.append(key)
            return None
        return raw

    def read_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `read`; what is not at hand by one MultiGet per database."""
        wanted = list(keys)
        try:
            found = self.values(wanted, [key_slot(key) for key in wanted])
        finally:
            self._ahead.clear()
        self.count(len(found), sum(raw is None for raw in found))
        return found

    def values(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        """As `read` of each, but that nothing is counted as read: see `count`. The keys have these slots.

        Raises:
            ReplyError, NodeError, FormatError: one of them can't be read.
        """
        young = self.cache.young
        found = [young.get(key) for key in keys]
        if not all(found):
            if self.cache.lacks_all(keys):
                fetched = self._by_one_fetch(keys, slots)
                if fetched is not None:
                    return fetched
            found = self._from_everywhere(keys, slots)
        return [raw if raw and not raw[1] & _EXPIRES else self._unless_expired(key, raw) for key, raw in zip(keys, found, strict=True)]

    def _from_everywhere(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        self.fetch_ahead(keys)
        return [self._at_hand(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def _at_hand(self, key: bytes, slot: int) -> bytes:
        """The value of a key, which was fetched ahead if that could be done."""
        raw = self.cache.young.get(key)
        if raw is None:
            raw = self._ahead.get(key)
            if raw is None:
                raw = self._ahead[key] = self._fetch(key, slot)  # if another one fails, the dispatcher asks for all again
        return raw

    def _by_one_fetch(self, keys: list[bytes], slots: list[int]) -> list[bytes | None] | None:
        """What `values` gives, of keys of which the hot values know none, if all are of one database; None if they are not."""
        places = self._by_place(keys)
        get_many = self._get_many_of(next(iter(places)))
        if len(places) > 1 or get_many is None:
            return None
        found: list[bytes | None] = []
        for first in range(0, len(keys), AHEAD_KEYS_MAX):
            some = keys[first : first + AHEAD_KEYS_MAX]
            heads = [META_HEADS[slot] + key for slot, key in zip(slots[first : first + AHEAD_KEYS_MAX], some, strict=True)]
            raws = [raw if raw and not raw[1] else usable(raw) for raw in get_many(heads)]
            self.fetches += len(some)
            if self.cache.admits(self.reads, self.fetches):
                for key, raw in zip(some, raws, strict=True):
                    self.cache.put(key, raw)
            found += [raw if raw and not raw[1] else self._unless_expired(key, raw) for key, raw in zip(some, raws, strict=True)]
        return found

    def _get_many_of(self, place: int) -> Callable[[list[bytes]], list[bytes | None]] | None:
        if place < 0:
            return self.live.get_many
        active = self._ordered[place].whole
        return None if active is None else active.database.get_many

    def keep_ahead(self, keys: list[bytes], values: list[bytes | None]) -> None:
        """Values that `values` gave, and that were not used: `read` finds them until `forget_ahead`."""
        self._ahead.update((key, raw or ABSENT) for key, raw in zip(keys, values, strict=True))

    def count(self, reads: int, missing: int) -> None:
        """So many keys were looked for, and so many of them not found."""
        self.reads += reads
        self.missing += missing

    def _unless_expired(self, key: bytes, raw: bytes | None) -> bytes | None:
        if not raw:
            return None
        if raw[1] & _EXPIRES and (expiry_ms(raw) or 0) <= self.clock():
            self.expired_seen.append(key)
            return None
        return raw

    def fetch_ahead(self, keys: Iterable[bytes]) -> None:
        """Fetch what is not at hand of some keys, by one MultiGet per database, so that `read` finds it; what fails is left to `read`."""
        young = self.cache.young
        ahead = self._ahead
        wanted = [key for key in keys if key not in young and key not in ahead]  # without a call for each
        if len(wanted) < 2:
            return
        wanted = self.cache.lacking(wanted)
        if len(wanted) < 2:
            return
        for place, keys_there in self._by_place(wanted).items():
            get_many = self._get_many_of(place)
            if get_many is not None:
                self._remember(keys_there, get_many)

    def forget_ahead(self) -> None:
        """The run that `fetch_ahead` was meant for is over."""
        if self._ahead:
            self._ahead.clear()

    def version_of(self, key: bytes) -> OpenVersion | None:
        """The version that a key is read from in this turn of the loop; None if it is a live key."""
        owner = self.index.owner(key)
        return owner.active if owner else None

    def write(self, key: bytes, slot: int, raw: bytes) -> None:
        """Replace the meta value of a live key.

        Raises:
            ReplyError: the key is longer than this server stores.
        """
        if len(key) > USER_KEY_BYTES_MAX:
            raise ReplyError(KEY_TOO_LONG)
        self.live.put(META_HEADS[slot] + key, raw)
        self.touched(key)

    def delete(self, key: bytes, slot: int) -> bool:
        """Remove a live key; whether there was one that had not expired. The elements of a big collection are swept later."""
        raw = self.read(key, slot)
        if raw is None:
            return False
        if raw[1] & _BIG:
            self.abandoned.append((key, slot, raw))
        self.live.delete(META_HEADS[slot] + key)
        self.touched(key)
        return True

    def remove_expired(self, key: bytes, slot: int) -> bool:
        """Remove a live key whose time has come; whether it had. Who watches it is not told: it reads as it did before."""
        raw = self.live.get(META_HEADS[slot] + key)
        if raw is None or raw[1] & _UNREADABLE or not raw[1] & Flag.EXPIRES or (expiry_ms(raw) or 0) > self.clock():
            return False
        if raw[1] & Flag.BIG:
            self.abandoned.append((key, slot, raw))
        self.live.delete(META_HEADS[slot] + key)
        self.cache.drop(key)
        self._ahead.pop(key, None)
        self.expired_keys += 1
        return True

    def clear(self) -> None:
        """Remove all live keys, and their elements."""
        self.live.clear()
        self.abandoned.clear()
        self.expired_seen.clear()
        self.dataset_changed(None)

    @contextmanager
    def construction(self, key: bytes) -> Iterator[int]:
        """The element version of a collection whose elements are written over several turns: the sweep spares them meanwhile. The meta
        value that names it is written in the turn in which the construction ends.
        """
        made = key, self.new_element_version()
        self.constructing.add(made)
        try:
            yield made[1]
        finally:
            self.constructing.discard(made)

    def new_element_version(self) -> int:
        """An element version for a collection that becomes big: above all that this shard gave out, after a restart by its clock."""
        self._last_element_version = max(self._last_element_version + 1, self.clock() << _VERSIONS_PER_MS_BITS)
        return self._last_element_version

    def touched(self, key: bytes) -> None:
        """The value of a live key is, or is about to be, another one."""
        self.cache.drop(key)
        if self._ranks:
            self._ranks.pop(key, None)
        if self._ahead:
            self._ahead.pop(key, None)
        if self.on_change is not None:
            self.on_change(key)

    def dataset_changed(self, dataset: Dataset | None) -> None:
        """What the keys of a dataset read as has changed; None: of any key."""
        if dataset is None:
            self.cache.clear()
        else:
            prefix = dataset.prefix
            self.cache.doubt(lambda key: key.startswith(prefix))
        self._many_changed()

    def rows_replaced(self, prefix: bytes, slots: frozenset[int]) -> None:
        """What live keys of a prefix and some slots read as has changed."""
        self.cache.doubt(lambda key: key.startswith(prefix) and key_slot(key) in slots)
        self._many_changed()

    def _many_changed(self) -> None:
        self._ahead.clear()
        if self.on_change is not None:
            self.on_change(None)

    def _place(self, key: bytes) -> int:
        """Where in the index the dataset of a key stands; negative if none owns it."""
        place = bisect_right(self._prefixes, key) - 1
        return place if place >= 0 and key.startswith(self._prefixes[place]) else -1

    def _by_place(self, keys: list[bytes]) -> dict[int, list[bytes]]:
        """Keys by where they are read from, as `_place` says; most often all are one dataset's, which is seen without a call for each."""
        place = self._place(keys[0])
        if place >= 0:
            prefix = self._prefixes[place]
            if all([key.startswith(prefix) for key in keys]):  # noqa: C419 -- a generator takes twice as long
                return {place: keys}
        found: dict[int, list[bytes]] = {}
        for key in keys:
            found.setdefault(self._place(key), []).append(key)
        return found

    def _fetch(self, key: bytes, slot: int) -> bytes:
        """The value from wherever it is, fit to be kept; ABSENT if it is nowhere."""
        raw = self.cache.from_old(key)
        if raw is not None:
            return raw
        self.fetches += 1
        place = self._place(key)
        raw = usable((self.live.get if place < 0 else self._ordered[place].get)(META_HEADS[slot] + key))
        if self.cache.admits(self.reads, self.fetches):
            self.cache.put(key, raw)
        return raw

    def _remember(self, keys: list[bytes], get_many: Callable[[list[bytes]], list[bytes | None]]) -> None:
        for first in range(0, len(keys), AHEAD_KEYS_MAX):
            some = keys[first : first + AHEAD_KEYS_MAX]
            try:
                values = get_many([META_HEADS[key_slot(key)] + key for key in some])
            except NodeError:
                return  # one block that can't be read is no reason to fail all: `read` says so to the command that needs it
            self.fetches += len(some)
            found = {key: raw or ABSENT for key, raw in zip(some, values, strict=True)}
            for key in [key for key, raw in found.items() if raw and raw[1] & _RAISING]:
                del found[key]  # it is fetched by the command that asks for it
            if self.cache.admits(self.reads, self.fetches):
                put = self.cache.put
                self._ahead.update((key, raw) for key, raw in found.items() if not put(key, raw))
            else:
                self._ahead.update(found)


class PinnedEngine(Engine):
    """What a connection with pins reads: some datasets from versions of its own, everything else as everybody."""

    def __init__(self, engine: Engine, pins: dict[str, OpenVersion]) -> None:
        self._engine = engine
        self._pins = pins
        self.live = engine.live
        self.index = engine.index
        self.clock = engine.clock
        self.cache = engine.cache
        self.abandoned = engine.abandoned
        self.expired_seen = engine.expired_seen
        self.constructing = engine.constructing
        self._ahead = {}

    def read(self, key: bytes, slot: int) -> bytes | None:
        """As for everybody, but for pins."""
        owner = self.index.owner(key)
        pinned = owner and self._pins.get(owner.pointer.dataset)
        if not pinned:
            return self._engine.read(key, slot)
        raw = usable(pinned.database.get(META_HEADS[slot] + key))
        expired = raw and raw[1] & _EXPIRES and (expiry_ms(raw) or 0) <= self.clock()
        return None if not raw or expired else raw

    def values(self, keys: list[bytes], slots: list[int]) -> list[bytes | None]:
        """One by one, each counted by its `read`: pins are for verification."""
        return [self.read(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def read_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One by one: pins are for verification."""
        return self.values([*keys], [key_slot(key) for key in keys])

    def fetch_ahead(self, keys: Iterable[bytes]) -> None:
        """Nothing: what was fetched would be what everybody reads."""

    def touched(self, key: bytes) -> None:
        """For everybody."""
        self._engine.touched(key)

    def clear(self) -> None:
        """For everybody."""
        self._engine.clear()

    def new_element_version(self) -> int:
        """From the one source that all connections share."""
        return self._engine.new_element_version()

    def version_of(self, key: bytes) -> OpenVersion | None:
        """As for everybody, but for pins."""
        owner = self.index.owner(key)
        pinned = owner and self._pins.get(owner.pointer.dataset)
        return pinned or super().version_of(key)
