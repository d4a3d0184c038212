"""The cluster's documents in the store: reading them, and changing the desired state.

Rules:
- A change is a pure function of the document; it is applied to what is there, and written only if nobody wrote in between.
- The epoch grows by one with every write. A change that changes nothing writes nothing.
- An answer that got lost is resolved by reading back: the document that stands there says whether it was ours.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import time
from collections.abc import Callable

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion, Goal, overlapping
from pipeline.format.errors import ConflictError, ObjectMissingError, OutcomeUnknownError, PrefixOverlapError, SpecError, UsageError
from pipeline.format.layout import desired_key, manifest_key, topology_key
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.format.topology import Topology
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 20  # writers collide only when two coordinators change the same cluster in the same 50 ms

Change = Callable[[Desired], Desired]


class ClusterDocuments:
    """One cluster's documents in one store."""

    def __init__(self, store: ObjectStore, cluster: str, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.cluster = cluster
        self._clock = clock
        self._author = f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"

    def topology(self) -> Topology:
        """The cluster's topology.

        Raises:
            UsageError: the store knows no such cluster.
        """
        try:
            return Topology.from_json(self.store.get(topology_key(self.cluster)).data, topology_key(self.cluster))
        except ObjectMissingError as missing:
            message = (
                f"the store {self.store.root} knows no cluster {self.cluster!r}: check the settings, or `redkv cluster apply` its topology"
            )
            raise UsageError(message, cluster=self.cluster) from missing

    def desired(self) -> Desired:
        """The desired state; an empty one at epoch 0 if it was never written."""
        return self._read()[0]

    def change(self, change: Change) -> Desired:
        """Apply a change and write it; the document as it stands then.

        Raises:
            ConflictError: other writers were faster, ATTEMPTS_MAX times.
        """
        for _ in range(ATTEMPTS_MAX):
            current, etag = self._read()
            wanted = change(current)
            if wanted == current:
                return current
            stamp = {"epoch": current.epoch + 1, "written_by": self._author, "written_at_ms": int(self._clock() * 1000)}
            wanted = Desired.model_validate({**wanted.model_dump(), **stamp})
            try:
                self._write(wanted, etag)
                return wanted
            except (ConflictError, OutcomeUnknownError):
                if self._read()[0] == wanted:
                    return wanted
        raise ConflictError(
            f"could not change {desired_key(self.cluster)}: {ATTEMPTS_MAX} times another writer was faster", cluster=self.cluster
        )

    def manifest(self, dataset: str, version: str) -> tuple[Manifest, str] | None:
        """A finished version's manifest and the SHA-256 of its bytes; None if the version is not finished."""
        key = manifest_key(dataset, version)
        try:
            data = self.store.get(key).data
        except ObjectMissingError:
            return None
        return Manifest.from_json(data, key), hashlib.sha256(data).hexdigest()

    def _read(self) -> tuple[Desired, str | None]:
        key = desired_key(self.cluster)
        try:
            blob = self.store.get(key)
        except ObjectMissingError:
            return Desired(cluster=self.cluster, epoch=0), None
        return Desired.from_json(blob.data, key), blob.etag

    def _write(self, document: Desired, etag: str | None) -> None:
        key = desired_key(self.cluster)
        if etag is None:
            self.store.create(key, document.to_json())
        else:
            self.store.replace(key, document.to_json(), etag)


def check_prefix(desired: Desired, dataset: str, prefix: str) -> None:
    """Whether a dataset may own a prefix.

    Raises:
        PrefixOverlapError: another dataset's prefix overlaps it.
        SpecError: the dataset is registered with another prefix.
    """
    for name, other in desired.datasets.items():
        if name == dataset and other.prefix != prefix:
            message = (
                f"dataset {dataset} owns the prefix {other.prefix!r} on this cluster, the spec's key starts with {prefix!r}: "
                f"keep the prefix, or give the dataset another name"
            )
            raise SpecError(message, dataset=dataset, prefix=prefix, registered=other.prefix)
        if name != dataset and overlapping(other.prefix, prefix):
            message = (
                f"the key prefix {prefix!r} of dataset {dataset} overlaps {other.prefix!r} of dataset {name}: "
                f"choose a key template whose literal start differs from it"
            )
            raise PrefixOverlapError(message, dataset=dataset, prefix=prefix, other=name, other_prefix=other.prefix)


def with_version(dataset: str, prefix: str, entry: DesiredVersion) -> Change:
    """A change: the dataset is registered, and holds this version with this goal. A goal never falls back."""

    def change(desired: Desired) -> Desired:
        check_prefix(desired, dataset, prefix)
        current = desired.datasets.get(dataset, DesiredDataset(prefix=prefix))
        known = current.find(entry.version)
        if known and known.build_id == entry.build_id and known.goal is not Goal.RETIRED:
            return desired
        others = [one for one in current.versions if one.version != entry.version]
        return _with_versions(desired, dataset, current, [*others, entry])

    return change


def with_goal(dataset: str, version: str, goal: Goal) -> Change:
    """A change: the version gets this goal; the one that was active so far is retired by the activation of another."""

    def change(desired: Desired) -> Desired:
        current = _dataset(desired, dataset, version)
        versions = []
        for one in current.versions:
            if one.version == version:
                versions.append(one.model_copy(update={"goal": goal}))
            elif goal is Goal.ACTIVE and one.goal is Goal.ACTIVE:
                versions.append(one.model_copy(update={"goal": Goal.RETIRED}))
            else:
                versions.append(one)
        return _with_versions(desired, dataset, current, versions)

    return change


def without_version(dataset: str, version: str) -> Change:
    """A change: nodes shall not hold this version. The dataset goes with its last version."""

    def change(desired: Desired) -> Desired:
        current = desired.datasets.get(dataset)
        if current is None or current.find(version) is None:
            return desired
        return _with_versions(desired, dataset, current, [one for one in current.versions if one.version != version])

    return change


def with_retained(dataset: str, retired_max: int) -> Change:
    """A change: of the retired versions only the newest `retired_max` stay."""

    def change(desired: Desired) -> Desired:
        current = desired.datasets.get(dataset)
        if current is None:
            return desired
        retired = [one.version for one in current.versions if one.goal is Goal.RETIRED]
        surplus = set(retired[: max(0, len(retired) - retired_max)])
        return _with_versions(desired, dataset, current, [one for one in current.versions if one.version not in surplus])

    return change


def _dataset(desired: Desired, dataset: str, version: str) -> DesiredDataset:
    current = desired.datasets.get(dataset)
    if current is None or current.find(version) is None:
        message = f"version {version} of {dataset} is no longer wanted on this cluster: somebody else withdrew it"
        raise UsageError(message, dataset=dataset, version=version)
    return current


def _with_versions(desired: Desired, dataset: str, current: DesiredDataset, versions: list[DesiredVersion]) -> Desired:
    datasets = dict(desired.datasets)
    if versions:
        datasets[dataset] = current.model_copy(update={"versions": tuple(sorted(versions, key=lambda one: version_order(one.version)))})
    else:
        datasets.pop(dataset, None)
    return desired.model_copy(update={"datasets": datasets})
