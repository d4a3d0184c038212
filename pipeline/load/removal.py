"""Removing versions from the store, as retention has it: found first, all of it, and then removed at a pace.

Rules:
- The manifest goes first: from then on nobody begins with the version, and what is left of it is garbage (garbage.py) if we end here.
- Whether a cluster shall hold the version, or a version that is there lies on it, is looked at once more right before. So a delta goes
  before what it lies on.
- Deletes are paced: a store serves the nodes' downloads at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.format.desired import Desired
from pipeline.format.errors import ObjectMissingError
from pipeline.format.layout import DATASETS_ROOT, clusters_root, desired_key, manifest_key, version_root, versions_root
from pipeline.format.manifest import Manifest
from pipeline.load.retention import StoredVersion, surplus_in_store
from pipeline.settings import Keep
from pipeline.store import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Surplus:
    """A version that the store need not keep, and its objects, the manifest first."""

    dataset: str
    version: str
    written_ms: int
    objects: tuple[ObjectInfo, ...]

    @property
    def bytes(self) -> int:
        """All objects together."""
        return sum(one.size for one in self.objects)


class Pace:
    """Lets through so many deletes a second."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._pause_s, self._clock, self._sleep = 1 / per_s, clock, sleep
        self._next = clock()

    def wait(self) -> None:
        """Return when the next one may go."""
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._pause_s


def wanted_by_clusters(store: ObjectStore) -> set[tuple[str, str]]:
    """Dataset and version of all that any cluster of this store shall hold.

    Raises:
        StoreError, FormatError: a cluster's document can't be read, so nothing can be said.
    """
    wanted: set[tuple[str, str]] = set()
    for cluster in store.folders(clusters_root()):
        try:
            desired = Desired.from_json(store.get(desired_key(cluster)).data, desired_key(cluster))
        except ObjectMissingError:
            continue  # a cluster that nothing was loaded onto yet
        wanted |= {(name, one.version) for name, dataset in desired.datasets.items() for one in dataset.versions}
    return wanted


def stored_versions(store: ObjectStore, dataset: str) -> Iterator[StoredVersion]:
    """The finished versions of a dataset."""
    for version in store.folders(versions_root(dataset)):
        key = manifest_key(dataset, version)
        for found in store.list(key):
            if found.key == key:
                yield StoredVersion(dataset, version, int(found.modified_s * 1000))


def lies_on(store: ObjectStore, version: StoredVersion) -> frozenset[str]:
    """The versions that one lies on; none if it is not there any more.

    Raises:
        StoreError, FormatError: its manifest can't be read, so nothing can be said.
    """
    key = manifest_key(version.dataset, version.version)
    try:
        return frozenset(one.version for one in Manifest.from_json(store.get(key).data, key).bases)
    except ObjectMissingError:
        return frozenset()


def find_surplus(store: ObjectStore, keep: Keep, now_ms: int) -> Iterator[Surplus]:
    """What the store need not keep of all datasets."""
    if keep.versions is None and keep.days is None:
        return
    wanted = wanted_by_clusters(store)
    for dataset in store.folders(DATASETS_ROOT):
        for one in surplus_in_store(stored_versions(store, dataset), wanted, keep, now_ms, lambda kept: lies_on(store, kept)):
            objects = sorted(
                store.list(version_root(dataset, one.version)), key=lambda found: found.key != manifest_key(dataset, one.version)
            )
            yield Surplus(dataset, one.version, one.written_ms, tuple(objects))


def remove_surplus(store: ObjectStore, surplus: Surplus, pace: Pace) -> bool:
    """Delete a version; False if a cluster shall hold it by now, or another version lies on it, and it stays."""
    if (surplus.dataset, surplus.version) in wanted_by_clusters(store):
        return False
    if any(surplus.version in lies_on(store, one) for one in stored_versions(store, surplus.dataset)):
        return False
    delete_all(store, (one.key for one in surplus.objects), pace)
    return True


def delete_all(store: ObjectStore, keys: Iterable[str], pace: Pace) -> None:
    """Delete objects at a pace."""
    for key in keys:
        pace.wait()
        store.delete(key)
