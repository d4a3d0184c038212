"""The steps of a load, each by itself, for whoever takes them: the coordinator in one go, a scheduler in a process per step.

Rules:
- Nothing is kept between two steps but in the store and on the nodes, so any step can be taken again, by anyone, after any other.
- A step that waits is two: what is written (`begin`), and what is waited for (`resume`), perhaps by another process.
- An older version is put over a newer one only by a caller who says so (`over_newer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import ChainTooLongError, LoadError, Outcome, RedkvError, StalledError, StoreError, UsageError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.format.topology import Topology
from pipeline.load.audit import build_record
from pipeline.load.bases import choose_base
from pipeline.load.documents import (
    Change,
    ClusterDocuments,
    check_prefix,
    next_rebuild,
    with_goal,
    with_retained,
    with_version,
    without_version,
)
from pipeline.load.nodes import LOOK_S_MAX, Nodes
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.steps import Steps
from pipeline.load.verification import check_keys, check_size, check_unreplicated, keys_of
from pipeline.load.waiting import Target, Wait, failed_for_good
from pipeline.load.wayback import check_not_bad
from pipeline.settings import Keep
from pipeline.spec import DatasetSpec, check_version, parse_spec

ACTIVE_BASE = "active"  # what stands for the version that clients read; no version id

_REACHED = {Step.STAGE: State.STAGED, Step.INGEST: State.READY, Step.ACTIVATE: State.ACTIVE}


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build: its manifest, and the SHA-256 of the manifest's bytes."""

    manifest: Manifest
    digest: str

    @property
    def entry(self) -> DesiredVersion:
        """What the desired state says of it at first."""
        one = self.manifest
        return DesiredVersion(
            version=one.version,
            build_id=one.build_id,
            manifest_key=manifest_key(one.dataset, one.version),
            manifest_sha256=self.digest,
            goal=Goal.STAGED,
        )

    def change(self, step: Step, *, over_newer: bool = False) -> Change:
        """What a step that waits changes in the desired state."""
        one = self.manifest
        if step is Step.STAGE:
            return with_version(one.dataset, one.prefix, self.entry, one.mode)
        return with_goal(one.dataset, one.version, Goal.READY if step is Step.INGEST else Goal.ACTIVE, over_newer=over_newer)


class Phases:
    """The steps of loads onto one cluster. Notes and looks go to the listener of `steps`."""

    def __init__(self, documents: ClusterDocuments, steps: Steps, keep: Keep) -> None:
        self.documents, self.steps = documents, steps
        self._keep = keep

    def check(self, spec: DatasetSpec, version: str, *, over_newer: bool = False) -> Topology:
        """Whether a version may be loaded at all, before it is built; the topology as it is.

        Raises:
            SpecError, UsageError, LoadError: it may not; nothing was changed.
        """
        check_version(version)
        topology = self.documents.topology()
        if topology.unowned():
            raise LoadError(f"cluster {topology.cluster} has {topology.unowned()} slots without an owner: repair the topology first")
        desired = self.documents.desired()
        check_order(desired, spec.dataset, version, over_newer=over_newer)
        check_prefix(desired, spec.dataset, spec.prefix, spec.mode)
        if spec.mode == "upsert":
            check_unreplicated(spec.dataset, topology)
        return topology

    def built(self, spec: DatasetSpec, version: str) -> Built | None:
        """The finished build of a version, None if there is none.

        Raises:
            UsageError: it was built from another spec.
        """
        found = self.documents.manifest(spec.dataset, version)
        if found is None:
            return None
        self.documents.trail.keep([build_record(found[0], self.documents.author)])
        if parse_spec(found[0].spec, "the manifest's spec") != spec:
            message = (
                f"{spec.dataset} {version} was built from another spec: choose a new version id (e.g. {next_rebuild(version)}), "
                f"or restore the spec"
            )
            raise UsageError(message, dataset=spec.dataset, version=version)
        return Built(*found)

    def lies_on(self, spec: DatasetSpec, version: str, base: str) -> str | None:
        """What a version is to be built on, None if nothing is, or if it is built already. Raises as `base_for` and `check_lies_on`."""
        built = self.built(spec, version)
        if built is None:
            return self.base_for(spec, version, base)
        self.check_lies_on(built, base)
        return None

    def base_for(self, spec: DatasetSpec, version: str, base: str) -> str | None:
        """On which version a new one is to lie; `base` may be ACTIVE_BASE, for what clients read now. None if it is to be a full one:
        nobody reads any yet, or the chain ends here and the source has all rows.

        Raises:
            UsageError, BaseMissingError, BaseChangedError, ChainTooLongError: it can't lie on that one.
        """
        if base == ACTIVE_BASE:
            active = active_of(self.documents.desired(), spec.dataset)
            if active is None:
                self.steps.note(f"clients read no version of {spec.dataset} yet: {version} is a full one")
                return None
            base = active.version
        try:
            choose_base(self.documents.store, spec, check_version(version), check_version(base))
        except ChainTooLongError as ended:
            if spec.changes:
                raise
            self.steps.note(f"{base} lies on {ended.fields['bases']} versions already: {version} is a full one")
            return None
        return base

    def check_lies_on(self, built: Built, base: str) -> None:
        """Whether a version that is built already lies on the base that was asked for.

        Raises:
            UsageError: it lies on another one.
        """
        one = built.manifest
        found = one.bases[0].version if one.bases else None
        if found is None:
            self.steps.note(f"{one.dataset} {one.version} is a full version")
        elif base not in {ACTIVE_BASE, found}:
            message = f"{one.dataset} {one.version} is built, and lies on {found}, not on {base}: choose a new version id"
            raise UsageError(f"{message} (e.g. {next_rebuild(one.version)})", dataset=one.dataset, version=one.version, base=found)

    def check_shrunk(self, desired: Desired, built: Built) -> None:
        """Whether a version has enough of the active one's rows. An upsert brings what changed, however much that is.

        Raises:
            ShrunkVersionError: it has not.
        """
        manifest = built.manifest
        current = desired.datasets.get(manifest.dataset)
        if manifest.mode == "upsert" or current is None or current.active is None:
            return
        before = self.documents.manifest(manifest.dataset, current.active.version)
        if before is not None:
            check_size(manifest, before[0])

    def check_shrunk_by_nodes(self, desired: Desired, built: Built, ready: Mapping[str, VersionStatus], nodes: Nodes) -> None:
        """The same by what all nodes hold, where a table of changes made one of the two, so that only they know; by keys then.

        Raises:
            ShrunkVersionError: it has not.
        """
        manifest = built.manifest
        active = active_of(desired, manifest.dataset)
        if manifest.mode == "upsert" or active is None or active.version == manifest.version:
            return
        stored = self.documents.manifest(manifest.dataset, active.version)
        if manifest.in_all is not None and (stored is None or stored[0].in_all is not None):
            return  # judged by rows
        answers = nodes.statuses()
        told = {name: one.find(manifest.dataset, active.version) for name, one in answers.items() if isinstance(one, NodeStatus)}
        before = {name: one for name, one in told.items() if one is not None and name in ready}
        check_keys(manifest, active.version, keys_of(nodes.topology, ready), keys_of(nodes.topology, before))

    def begin(self, step: Step, built: Built, nodes: Nodes, *, over_newer: bool = False) -> Wait:
        """Write what stage, ingest or activate change; the wait for it. Raises as its change (documents.py)."""
        epoch = self.steps.write(nodes, step, built.change(step, over_newer=over_newer))
        return self.resume(step, built, nodes, epoch, over_newer=over_newer)

    def resume(self, step: Step, built: Built, nodes: Nodes, epoch: int, *, over_newer: bool = False) -> Wait:
        """The wait for what `begin` wrote at `epoch`, here or elsewhere."""
        one, change = built.manifest, built.change(step, over_newer=over_newer)
        return self.steps.awaited(nodes, step, (one.dataset, one.version, one.build_id), _REACHED[step], change, epoch)

    def the_one_before(self, built: Built, nodes: Nodes) -> Wait | None:
        """The wait for an upsert's version before: a node that lacks it would never get it once this one is activated."""
        one = built.manifest
        current = self.documents.desired().datasets.get(one.dataset)
        before = current.active if current and one.mode == "upsert" else None
        if before is None or before.version == one.version:
            return None
        return Wait(self.steps.watch(nodes), Target(one.dataset, before.version, State.ACTIVE, 0, before.build_id), Step.VERIFY)

    def retained(self, dataset: str) -> Change:
        """What retention changes on the nodes."""
        return with_retained(dataset, self._keep, self.documents.now_ms())

    def clear_failed(self, built: Built, nodes: Nodes) -> None:
        """A failure that an earlier load left behind stands on its nodes until the version is withdrawn."""
        name, version = built.manifest.dataset, built.manifest.version
        current = self.documents.desired().datasets.get(name)
        if current is None or current.find(version) is None:
            return
        seen = {node: one.find(name, version) for node, one in nodes.statuses().items() if isinstance(one, NodeStatus)}
        failed = [node for node, one in seen.items() if one is not None and failed_for_good(one)]
        if failed:
            self.steps.note(f"{name} {version} failed before on {', '.join(failed)}: beginning anew")
            self.withdraw(name, version, nodes, f"failed before on {', '.join(failed)}")

    def withdraw(self, dataset: str, version: str, nodes: Nodes, why: str) -> None:
        """Take a version back, and wait a moment until its nodes confirm it. A failure here is told; the one that led here counts."""
        try:
            desired = self.documents.change(without_version(dataset, version), why)
            current = desired.datasets.get(dataset)
            if current is not None and current.find(version) is not None:
                return  # clients read it: another load brought it through
            nodes.wake()
            left = self.steps.watch(nodes).until_gone(dataset, version, desired.epoch)
            away = [node for node, one in nodes.statuses(LOOK_S_MAX).items() if not isinstance(one, NodeStatus)]
        except RedkvError as failure:
            self.steps.note(f"{dataset} {version} could not be withdrawn ({failure}): the same command does it when the cause is gone")
            return
        self.steps.note(f"{dataset} {version} was withdrawn; what clients read is as before")
        if away:
            self.steps.note(f"{', '.join(away)} can't be asked, and will drop it when back")
        if left:
            self.steps.note(f"{', '.join(left)} did not confirm that yet: look at `redkv status` before you try again")


def check_order(desired: Desired, dataset: str, version: str, *, over_newer: bool = False) -> None:
    """Whether a version may become active after what is active already.

    Raises:
        BadVersionError: it was marked bad.
        UsageError: it is older, and the caller does not say `over_newer`.
    """
    check_not_bad(desired, dataset, version)
    active = active_of(desired, dataset)
    if active and not over_newer and version_order(version) < version_order(active.version):
        message = (
            f"{dataset} {version} is older than the active version {active.version}: choose a newer version id, "
            f"e.g. {next_rebuild(active.version)}"
        )
        raise UsageError(message, dataset=dataset, version=version, active=active.version)


def active_of(desired: Desired, dataset: str) -> DesiredVersion | None:
    """The version of a dataset that clients shall read."""
    current: DesiredDataset | None = desired.datasets.get(dataset)
    return current.active if current else None


def is_final(failure: RedkvError) -> bool:
    """Whether a failure says something of the version, so that waiting longer would not help. This process' own store says nothing."""
    own_store = isinstance(failure, StoreError) and "node" not in failure.fields
    return failure.outcome is Outcome.FATAL and not isinstance(failure, StalledError) and not own_store
