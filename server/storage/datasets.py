"""Which dataset owns a key: prefixes that never overlap, sorted, so one bisection finds the only candidate.

Rules:
- A key under a registered prefix is never looked up in the live database, whether a version is active or not.
- A dataset without an active version has no keys. One whose active version could not be opened answers an error that names it, and so do
  the keys of slots that the active version was made without: an absent reply for a key that the dataset has would be a lie.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import PrefixOverlapError
from pipeline.format.keys import Kind
from pipeline.format.slots import SlotRange, slot_set
from server.resp.replies import ReplyError
from server.resp.texts import slot_not_loaded, unavailable
from server.storage.pointers import DatasetPointer
from server.storage.rocks import Database

Reader = Callable[[bytes], bytes | None]
"""Reads a meta value by its internal key."""


Stamp = tuple[int, int, int]
"""Which directory of a name it is: device, inode and change time of its VERSION.json, which is written once."""

_SLOT_BYTES = 2  # an internal key begins with its slot
_SLOT_SETS_KEPT = 16  # datasets of a shard were made for the same slots, but around a change of the topology


class OpenVersion:
    """An opened version directory. `pins` counts connections that read it; `retired` means: close it once nobody does."""

    __slots__ = ("_checkpoints", "closed", "database", "identity", "pins", "retired", "stamp")

    def __init__(self, identity: VersionIdentity, database: Database, stamp: Stamp) -> None:
        self.identity = identity
        self.database = database
        self.stamp = stamp
        self.pins = 0
        self.retired = False
        self.closed = False
        self._checkpoints: OrderedDict[tuple[Kind, bytes], list[bytes]] = OrderedDict()

    def checkpoints_of(self, kind: Kind, user_key: bytes, collections_max: int) -> list[bytes]:
        """Where every so many elements of a big collection begin, as far as it was walked; kept for those read last."""
        known = self._checkpoints.setdefault((kind, user_key), [])
        self._checkpoints.move_to_end((kind, user_key))
        if len(self._checkpoints) > collections_max:
            self._checkpoints.popitem(last=False)
        return known


class Dataset:
    """A registered dataset: its durable pointer, its opened versions by id, and `get`, which reads the active one."""

    __slots__ = ("active", "get", "opened", "pointer", "prefix")

    def __init__(self, pointer: DatasetPointer, get: Reader) -> None:
        self.pointer = pointer
        self.prefix = pointer.prefix.encode()
        self.opened: dict[str, OpenVersion] = {}
        self.active: OpenVersion | None = None
        self.get = get

    def serve(self, version: OpenVersion, owned: frozenset[int]) -> None:
        """Readers get this version from now on; of `owned` slots that it lacks, an error."""
        self.active = version
        lacking = lacking_slots(owned, version.identity.slots)
        self.get = self._guarded(version, lacking) if lacking else version.database.get

    def _guarded(self, version: OpenVersion, lacking: frozenset[int]) -> Reader:
        read = version.database.get

        def get(key: bytes) -> bytes | None:
            slot = int.from_bytes(key[:_SLOT_BYTES])
            if slot in lacking:
                raise ReplyError(slot_not_loaded(self.pointer.dataset, version.identity.version, slot))
            return read(key)

        return get

    def refuse(self, why: str) -> None:
        """Readers get an error from now on: the active version can't be opened."""
        text = unavailable(self.pointer.dataset, self.pointer.active or "", why)

        def get(_key: bytes) -> bytes | None:
            raise ReplyError(text)

        self.active = None
        self.get = get


class DatasetIndex:
    """All registered datasets, by name and by key."""

    def __init__(self) -> None:
        self.by_name: dict[str, Dataset] = {}
        self.prefixes: list[bytes] = []  # sorted; `ordered` goes along
        self.ordered: list[Dataset] = []

    def owner(self, key: bytes) -> Dataset | None:
        """The dataset whose prefix `key` starts with."""
        place = bisect_right(self.prefixes, key) - 1
        if place >= 0 and key.startswith(self.prefixes[place]):
            return self.ordered[place]
        return None

    def add(self, dataset: Dataset) -> None:
        """Add a dataset.

        Raises:
            PrefixOverlapError: a key could start with its prefix and another's.
        """
        for other in self.ordered:
            if other.prefix.startswith(dataset.prefix) or dataset.prefix.startswith(other.prefix):
                raise PrefixOverlapError(
                    f"prefix {dataset.pointer.prefix!r} of dataset {dataset.pointer.dataset} overlaps prefix {other.pointer.prefix!r} "
                    f"of {other.pointer.dataset}; choose a prefix that neither starts",
                    dataset=dataset.pointer.dataset,
                    other=other.pointer.dataset,
                )
        self.by_name[dataset.pointer.dataset] = dataset
        self._sort()

    def remove(self, name: str) -> None:
        """Remove a dataset: its keys are ordinary keys again."""
        del self.by_name[name]
        self._sort()

    def _sort(self) -> None:
        self.ordered[:] = sorted(self.by_name.values(), key=lambda one: one.prefix)
        self.prefixes[:] = [one.prefix for one in self.ordered]


@lru_cache(_SLOT_SETS_KEPT)
def lacking_slots(owned: frozenset[int], held: tuple[SlotRange, ...]) -> frozenset[int]:
    """The owned slots that are not held."""
    return owned - slot_set(held)


def nothing(_key: bytes) -> bytes | None:
    """The reader of a dataset that has no active version."""
    return None
