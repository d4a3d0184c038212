"""Which dataset owns a key: prefixes that never overlap, sorted, so one bisection finds the only candidate.

Rules:
- A key under a registered prefix is never looked up in the live database, whether a version is active or not.
- A dataset without an active version has no keys. One whose active version could not be opened answers an error that names it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import PrefixOverlapError
from server.resp.replies import ReplyError
from server.resp.texts import unavailable
from server.storage.pointers import DatasetPointer
from server.storage.rocks import Database

Reader = Callable[[bytes], bytes | None]
"""Reads a meta value by its internal key."""


class OpenVersion:
    """An opened version directory. `pins` counts connections that read it; `retired` means: close it once nobody does."""

    __slots__ = ("database", "identity", "pins", "retired")

    def __init__(self, identity: VersionIdentity, database: Database) -> None:
        self.identity = identity
        self.database = database
        self.pins = 0
        self.retired = False


class Dataset:
    """A registered dataset: its durable pointer, its opened versions by id, and `get`, which reads the active one."""

    __slots__ = ("active", "get", "opened", "pointer", "prefix")

    def __init__(self, pointer: DatasetPointer, get: Reader) -> None:
        self.pointer = pointer
        self.prefix = pointer.prefix.encode()
        self.opened: dict[str, OpenVersion] = {}
        self.active: OpenVersion | None = None
        self.get = get

    def serve(self, version: OpenVersion) -> None:
        """Readers get this version from now on."""
        self.active = version
        self.get = version.database.get

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


def nothing(_key: bytes) -> bytes | None:
    """The reader of a dataset that has no active version."""
    return None
