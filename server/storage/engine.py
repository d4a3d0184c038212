"""The keyspace as commands see it: what lookup.py finds, and what clients may change of it.

Rules:
- The caller checks that nobody writes below a dataset's prefix (executor.py does, for all commands), and commits what was written.
- Whoever changes a key tells the hot values and those who watch it: `write`, `delete` and `touched` do, and nothing else changes keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.format.keys import USER_KEY_BYTES_MAX
from pipeline.format.slots import key_slot, key_slots
from pipeline.format.values import Flag, expiry_ms
from server.resp.replies import ReplyError
from server.resp.texts import KEY_TOO_LONG
from server.storage.datasets import Dataset, DatasetIndex, OpenVersion
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.lookup import META_HEADS, UNREADABLE_FLAGS, Clock, Lookup, usable

Abandoned = tuple[bytes, int, bytes]
"""Key, slot and meta value of a big collection that was removed, whose elements are still there."""

ABANDONED_MAX = 10_000  # removed big collections that the sweep is told of; more it finds by itself, a little later

_VERSIONS_PER_MS_BITS = 20
_EXPIRES, _BIG = int(Flag.EXPIRES), int(Flag.BIG)  # an IntFlag's own operators cost a microsecond


class Engine(Lookup):
    """What clients read and write. `expired_keys` are live keys removed because their time had come. `constructing` names collections
    whose elements are being written before their meta value is.
    """

    def __init__(self, live: LiveStore, index: DatasetIndex, clock: Clock, cache: HotCache) -> None:
        super().__init__(live, index, clock, cache)
        self.expired_keys = 0
        self.abandoned: deque[Abandoned] = deque(maxlen=ABANDONED_MAX)
        self.constructing: set[tuple[bytes, int]] = set()
        self._last_element_version = 0
        self.on_change: Callable[[bytes | None], None] | None = None  # told every changed key, None for all; see watching.py
        self._ranks = live.ranks.by_key
        index.on_change = self.dataset_changed

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
        if raw is None or raw[1] & UNREADABLE_FLAGS or not raw[1] & _EXPIRES or (expiry_ms(raw) or 0) > self.clock():
            return False
        if raw[1] & _BIG:
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
        return self.values([*keys], key_slots(keys))

    def fetch_ahead(self, keys: list[bytes]) -> None:
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
