"""The cluster's documents in the store: reading them, and changing the desired state.

Rules:
- A change is a pure function of the document; it is applied to what is there, and written only if nobody wrote in between.
- The epoch grows by one with every write. A change that changes nothing writes nothing.
- Whatever a change did is told in the document that it wrote (audit.py); the records of the write before are stored first.
- An answer that got lost is resolved by reading back: the document that stands there says whether it was ours.
- A change holds for whatever it meets, since another load may have written in between: it never takes an active version from its
  readers, never moves a goal back, and never puts an older version over a newer one unasked.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion, Goal, overlapping
from pipeline.format.errors import (
    ConcurrentLoadError,
    ConflictError,
    ObjectMissingError,
    OutcomeUnknownError,
    PrefixOverlapError,
    SpecError,
    UsageError,
)
from pipeline.format.layout import desired_key, manifest_key, topology_key
from pipeline.format.manifest import Manifest
from pipeline.format.records import Mode, version_order
from pipeline.format.topology import Topology
from pipeline.load.audit import Trail, author, deeds
from pipeline.load.retention import surplus_on_nodes
from pipeline.load.wayback import check_not_bad, is_overtaken, stamped
from pipeline.settings import Keep
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 20  # writers collide only when two coordinators change the same cluster in the same 50 ms
PAUSE_S_MAX = 0.2  # before another attempt, a random part of it: many loads that start on the hour get out of step

_FAR = {Goal.RETIRED: 0, Goal.STAGED: 1, Goal.READY: 2, Goal.ACTIVE: 3}

Change = Callable[[Desired], Desired]


class ClusterDocuments:
    """One cluster's documents in one store."""

    def __init__(
        self,
        store: ObjectStore,
        cluster: str,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        name: str = "",
    ) -> None:
        self.store = store
        self.trail = Trail(store, cluster)
        self.author = author(name)
        self.cluster = cluster
        self._clock = clock
        self._sleep = sleep
        self.process = f"{self.author}:{os.getpid()}"

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

    def now_ms(self) -> int:
        """What the clock says."""
        return int(self._clock() * 1000)

    def change(self, change: Change, why: str = "") -> Desired:
        """Apply a change and write it; the document as it stands then. `why` is kept in the audit trail.

        Raises:
            ConflictError: other writers were faster, ATTEMPTS_MAX times.
        """
        for _ in range(ATTEMPTS_MAX):
            current, etag = self._read()
            wanted = change(current)
            if wanted == current:
                return current
            self.trail.keep(current.audit)
            now_ms = self.now_ms()
            stamp = {"epoch": current.epoch + 1, "written_by": self.process, "written_at_ms": now_ms}
            wanted = stamped(current, wanted, now_ms).model_copy(update=stamp)
            wanted = Desired.model_validate({**wanted.model_dump(), "audit": deeds(current, wanted, self.author, now_ms, why)})
            try:
                self._write(wanted, etag)
                return wanted
            except (ConflictError, OutcomeUnknownError):
                if self._read()[0] == wanted:
                    return wanted
                self._sleep(random.uniform(0, PAUSE_S_MAX))
        message = f"could not change {desired_key(self.cluster)}: {ATTEMPTS_MAX} times another writer was faster; repeat the command"
        raise ConflictError(message, cluster=self.cluster)

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


def check_prefix(desired: Desired, dataset: str, prefix: str, mode: Mode = "replace") -> None:
    """Whether a dataset may own a prefix, and be loaded in a mode.

    Raises:
        PrefixOverlapError: another dataset's prefix overlaps it.
        SpecError: the dataset is registered with another prefix, or in the other mode.
    """
    for name, other in desired.datasets.items():
        if name == dataset and other.mode != mode:
            message = (
                f"dataset {dataset} is loaded in mode {other.mode} on this cluster, the spec says {mode}: keep the mode, or give the "
                f"dataset another name and prefix"
            )
            raise SpecError(message, dataset=dataset, mode=mode, registered=other.mode)
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


def with_version(dataset: str, prefix: str, entry: DesiredVersion, mode: Mode = "replace") -> Change:
    """A change: the dataset is registered, and holds this version with at least this goal.

    Raises (when applied):
        PrefixOverlapError, SpecError: as `check_prefix`.
        UsageError: clients read another build of this version.
        BadVersionError: it was marked bad.
    """

    def change(desired: Desired) -> Desired:
        check_not_bad(desired, dataset, entry.version)
        check_prefix(desired, dataset, prefix, mode)
        current = desired.datasets.get(dataset, DesiredDataset(prefix=prefix, mode=mode))
        known = current.find(entry.version)
        if known and known.build_id == entry.build_id and known.goal is not Goal.RETIRED:
            return desired
        if known and known.goal is Goal.ACTIVE:
            message = (
                f"{dataset} {entry.version} is active from build {known.build_id}, the store now holds build {entry.build_id}: "
                f"a version never changes; load it under a new version id, e.g. {next_rebuild(entry.version)}"
            )
            raise UsageError(message, dataset=dataset, version=entry.version, active_build=known.build_id, build=entry.build_id)
        others = [one for one in current.versions if one.version != entry.version]
        same = known is not None and known.build_id == entry.build_id
        added = entry.model_copy(update={"retired_at_ms": known.retired_at_ms}) if known and same else entry  # it stays a way back
        return _with_versions(desired, dataset, current, [*others, added])

    return change


def with_goal(dataset: str, version: str, goal: Goal, *, over_newer: bool = False) -> Change:
    """A change: the version gets this goal, unless it is further already; an activation retires the version that was active so far,
    and ends the bringing of older ones.

    `over_newer` lets it be older than the one that it is put over.

    Raises (when applied):
        ConcurrentLoadError: another load withdrew the version, or activated a newer one.
        BadVersionError: it was marked bad.
    """

    def change(desired: Desired) -> Desired:
        check_not_bad(desired, dataset, version)
        current = desired.datasets.get(dataset)
        known = current.find(version) if current else None
        if current is None or known is None:
            message = f"{dataset} {version} is no longer wanted on this cluster: another load withdrew it ({last_writer(desired)})"
            raise ConcurrentLoadError(message, dataset=dataset, version=version)
        if not over_newer and current.active and version_order(current.active.version) > version_order(version):
            message = (
                f"{dataset} {current.active.version} became active in the meantime ({last_writer(desired)}): "
                f"{version} is older, and is not put over it"
            )
            raise ConcurrentLoadError(message, dataset=dataset, version=version, active=current.active.version)
        if _FAR[known.goal] >= _FAR[goal]:
            return desired
        versions = []
        for one in current.versions:
            if one.version == version:
                versions.append(one.model_copy(update={"goal": goal}))
            elif goal is Goal.ACTIVE and (one.goal is Goal.ACTIVE or is_overtaken(one, version)):
                versions.append(one.model_copy(update={"goal": Goal.RETIRED}))
            else:
                versions.append(one)
        return _with_versions(desired, dataset, current, versions)

    return change


def without_version(dataset: str, version: str) -> Change:
    """A change: nodes shall not hold this version. The dataset goes with its last version. What clients read, or read before, stays."""

    def change(desired: Desired) -> Desired:
        current = desired.datasets.get(dataset)
        known = current.find(version) if current else None
        if current is None or known is None or known.goal in {Goal.ACTIVE, Goal.RETIRED}:
            return desired
        return _with_versions(desired, dataset, current, [one for one in current.versions if one.version != version])

    return change


def with_retained(dataset: str, keep: Keep, now_ms: int) -> Change:
    """A change: nodes hold no more versions than are kept (retention.py)."""

    def change(desired: Desired) -> Desired:
        current = desired.datasets.get(dataset)
        if current is None:
            return desired
        surplus = surplus_on_nodes(current, keep, now_ms)
        return _with_versions(desired, dataset, current, [one for one in current.versions if one.version not in surplus])

    return change


def next_rebuild(version: str) -> str:
    """The id of a version's next rebuild: `2026-11-22.2` after `2026-11-22`, `.3` after `.2`."""
    moment, number = version_order(version)
    return f"{moment}.{number + 1}"


def last_writer(desired: Desired) -> str:
    """Who wrote the desired state last, and when, for people."""
    written = datetime.fromtimestamp(desired.written_at_ms / 1000, UTC)
    return f"epoch {desired.epoch}, written by {desired.written_by or 'nobody known'} at {written:%Y-%m-%d %H:%M:%S} UTC"


def _with_versions(desired: Desired, dataset: str, current: DesiredDataset, versions: list[DesiredVersion]) -> Desired:
    datasets = dict(desired.datasets)
    if versions:
        datasets[dataset] = current.model_copy(update={"versions": tuple(sorted(versions, key=lambda one: version_order(one.version)))})
    else:
        datasets.pop(dataset, None)
    return desired.model_copy(update={"datasets": datasets})
