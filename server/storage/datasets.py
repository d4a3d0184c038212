"""Which dataset owns a key: prefixes that never overlap, sorted, so one bisection finds the only candidate.

Rules:
- A key under a registered prefix is never looked up in the live database, whether a version is active or not.
- A dataset without an active version has no keys. One whose active version could not be opened answers an error that names it, and so do
  one that is active elsewhere and not loaded here yet, and the keys of slots that the active version was made without: an absent reply for
  a key that the dataset has would be a lie.
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
from server.resp.texts import not_loaded, slot_not_loaded, unavailable
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
    """A registered dataset: its durable pointer, its opened versions by id, and `get`, which reads the active one. `whole` is the
    active one if it can be read without asking which slots it has.
    """

    __slots__ = ("_refusal", "active", "get", "lacking", "opened", "pointer", "prefix", "whole")

    def __init__(self, pointer: DatasetPointer, get: Reader) -> None:
        self.pointer = pointer
        self.prefix = pointer.prefix.encode()
        self.opened: dict[str, OpenVersion] = {}
        self.active: OpenVersion | None = None
        self.whole: OpenVersion | None = None
        self.lacking: frozenset[int] = frozenset()
        self.get = get
        self._refusal: str | None = None

    def check(self) -> None:
        """For those who want all keys.

        Raises:
            ReplyError: some of them can't be read.
        """
        if self._refusal is not None:
            raise ReplyError(self._refusal)

    def serve(self, version: OpenVersion, held: frozenset[int]) -> None:
        """Readers get this version from now on; of `held` slots that it lacks, an error."""
        self.active = version
        self.lacking = lacking_slots(held, version.identity.slots)
        self.whole = None if self.lacking else version
        self.get = self._guarded(version, self.lacking) if self.lacking else version.database.get
        self._refusal = slot_not_loaded(self.pointer.dataset, version.identity.version, min(self.lacking)) if self.lacking else None

    def serves(self, slot: int) -> bool:
        """Whether the keys of a slot are read from an active version."""
        return self.active is not None and slot not in self.lacking

    def _guarded(self, version: OpenVersion, lacking: frozenset[int]) -> Reader:
        read = version.database.get

        def get(key: bytes) -> bytes | None:
            slot = int.from_bytes(key[:_SLOT_BYTES])
            if slot in lacking:
                raise ReplyError(slot_not_loaded(self.pointer.dataset, version.identity.version, slot))
            return read(key)

        return get

    def await_first(self) -> None:
        """Without an active version: readers get an error if one is expected here, else the dataset has no keys."""
        expected = self.pointer.expected
        if self.pointer.active is not None:
            return
        if expected is not None:
            self._refuse(not_loaded(self.pointer.dataset, expected))
        else:
            self.get, self._refusal = nothing, None

    def refuse(self, why: str) -> None:
        """Readers get an error from now on: the active version can't be opened."""
        self.active = self.whole = None
        self._refuse(unavailable(self.pointer.dataset, self.pointer.active or "", why))

    def _refuse(self, text: str) -> None:
        def get(_key: bytes) -> bytes | None:
            raise ReplyError(text)

        self.get, self._refusal = get, text


class DatasetIndex:
    """All registered datasets, by name and by key. `on_change` is told when the keys of one read differently; None: those of any."""

    def __init__(self) -> None:
        self.by_name: dict[str, Dataset] = {}
        self.prefixes: list[bytes] = []  # sorted; `ordered` goes along
        self.ordered: list[Dataset] = []
        self.on_change: Callable[[Dataset | None], None] | None = None

    def changed(self, dataset: Dataset | None = None) -> None:
        """Say so."""
        if self.on_change is not None:
            self.on_change(dataset)

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
        self.changed(dataset)

    def remove(self, name: str) -> None:
        """Remove a dataset: its keys are ordinary keys again."""
        dataset = self.by_name.pop(name)
        self._sort()
        self.changed(dataset)

    def _sort(self) -> None:
        self.ordered[:] = sorted(self.by_name.values(), key=lambda one: one.prefix)
        self.prefixes[:] = [one.prefix for one in self.ordered]


@lru_cache(_SLOT_SETS_KEPT)
def lacking_slots(held: frozenset[int], made_for: tuple[SlotRange, ...]) -> frozenset[int]:
    """The slots of a shard that a version was made without."""
    return held - slot_set(made_for)


def nothing(_key: bytes) -> bytes | None:
    """The reader of a dataset that has no active version."""
    return None
