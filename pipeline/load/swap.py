"""Swaps between versions that are there: `rollback` and `activate`.

plan → (stage → ingest → verify, where a node lacks the version) → activate

Rules:
- Nothing is built. Nodes that still hold the directory only swap: one durable write per shard, ordered by one conditional write here.
- A version that some node lacks is brought to all of them first, and verified: clients read two versions for no longer than a swap.
  If that is interrupted, the version stays a way back, and the same command goes on with it, up to its verification.
- A rollback that names no version goes on with one that was written and is not yet everywhere, instead of going back one more.
- A node that is away holds nothing up, if every slot has another owner: it follows when it is back.
- The marks and the swap are one write: there is no moment at which the one is there without the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.format.desired import BadVersion, Desired, DesiredVersion, Goal
from pipeline.format.errors import NoWayBackError, UsageError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.load.coverage import Require, shards_elsewhere, window_of
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Answer, Nodes
from pipeline.load.progress import RANK, Listener, Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.steps import Steps
from pipeline.load.verification import verify
from pipeline.load.waiting import Patience
from pipeline.load.wayback import brought, came_by_rollback, choose, dataset_of, marked, swapped
from pipeline.settings import ClusterSettings
from pipeline.spec import check_version
from pipeline.store import ObjectStore


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap came to.

    `changed` is False if clients read the version everywhere already. `left` is the version that they read before, `marked_bad` whether it
    was marked. `swap_window_s` is the time between the first and the last shard's swap, by their nodes' clocks, None if a node does not
    say (it was restarted since); `seconds` by step.
    """

    dataset: str
    version: str
    build_id: str
    left: str | None
    marked_bad: bool
    changed: bool
    swap_window_s: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Swapper:
    """Lets clients read another version of a dataset."""

    def __init__(
        self,
        settings: ClusterSettings,
        listener: Listener,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self.documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster, name=settings.author)
        self._steps = Steps(self.documents, listener, patience or Patience(), clock, sleep, require=Require.ANY)

    def rollback(self, dataset: str, to: str | None = None, *, mark_bad: bool = False) -> SwapReport:
        """Let clients read an older version, by default the previous one; `mark_bad` marks the one that they leave.

        Raises:
            UsageError: no such dataset or version; nothing was changed.
            BadVersionError, NoWayBackError: it can't be that version; nothing was changed.
            RedkvError: as named; what is written goes on by itself.
        """
        return self._swap(dataset, to, mark_bad=mark_bad)

    def activate(self, dataset: str, version: str) -> SwapReport:
        """Let clients read a version that they read before, older or newer. Raises as `rollback`."""
        return self._swap(dataset, version, mark_bad=False)

    def mark_bad(self, dataset: str, version: str) -> bool:
        """Mark a version that clients do not read; False if it was marked before. Raises as `rollback`."""
        check_version(version)
        current = dataset_of(self.documents.desired(), dataset)
        if current.mark_of(version) is not None:
            return False
        mark = self._mark(current.find(version) or self._from_store(dataset, version))
        self.documents.change(lambda desired: marked(desired, dataset, mark))
        return True

    def _mark(self, one: DesiredVersion) -> BadVersion:
        return BadVersion(version=one.version, build_id=one.build_id, by=self.documents.author, at_ms=self.documents.now_ms())

    def _swap(self, dataset: str, version: str | None, *, mark_bad: bool) -> SwapReport:
        steps = self._steps
        with steps.step(Step.PLAN, f"looking for the version of {dataset}"):
            if version is not None:
                check_version(version)
            desired = self.documents.desired()
            nodes = Nodes(self.documents.topology(), self._settings.sidecar_token)
        with nodes:
            answers = nodes.statuses()
            target = self._target(desired, dataset, version, answers)
            active = dataset_of(desired, dataset).active
            if active is not None and active.version == target.version:
                return self._finish(dataset, target, nodes, answers)
            begun = target.goal is not Goal.RETIRED
            if begun:
                self._steps.note(f"{dataset} {target.version} was being brought to the nodes before: going on with it")
            given_up = dataset_of(desired, dataset).find(target.version) is None  # nodes may be about to remove what they still hold
            if begun or given_up or not _held(dataset, target, answers):
                self._bring(dataset, target, nodes)
            left = active.version if active else None
            mark = self._mark(active) if mark_bad and active is not None else None
            return self._activate(dataset, target, nodes, left, mark)

    def _target(self, desired: Desired, dataset: str, version: str | None, answers: Mapping[str, Answer]) -> DesiredVersion:
        current = dataset_of(desired, dataset)
        active = current.active
        if version is None and active is not None and came_by_rollback(current) and not _serve(dataset, active, answers):
            self._steps.note(f"the rollback of {dataset} to {active.version} is written and not yet everywhere: going on with it")
            return active
        found = choose(desired, dataset, version)
        return found if found is not None else self._from_store(dataset, version or "")

    def _from_store(self, dataset: str, version: str) -> DesiredVersion:
        """A version that the nodes gave up, and the store still has."""
        stored = self.documents.manifest(dataset, version)
        if stored is None:
            message = f"there is no {dataset} {version}, neither on the nodes nor in the store: see `redkv versions {dataset}`"
            raise UsageError(message, dataset=dataset, version=version)
        manifest, digest = stored
        return DesiredVersion(
            version=version,
            build_id=manifest.build_id,
            manifest_key=manifest_key(dataset, version),
            manifest_sha256=digest,
            goal=Goal.RETIRED,
            retired_at_ms=manifest.built_at_ms,  # no sooner: it takes the place of none that nodes still hold
        )

    def _bring(self, dataset: str, target: DesiredVersion, nodes: Nodes) -> None:
        """Let all nodes hold a version, and verify it as a load does."""
        manifest = self._manifest(dataset, target)
        key = (dataset, target.version, target.build_id)

        def to(goal: Goal) -> Callable[[Desired], Desired]:
            entry = target.model_copy(update={"goal": goal})
            return lambda desired: brought(desired, dataset, entry)

        with self._steps.step(Step.STAGE, f"{len(manifest.files)} files, {manifest.totals.bytes} bytes, as far as nodes lack them"):
            self._steps.reach(nodes, Step.STAGE, key, State.STAGED, to(Goal.STAGED))
        with self._steps.step(Step.INGEST, "into a version directory of its own per shard"):
            ready = self._steps.reach(nodes, Step.INGEST, key, State.READY, to(Goal.READY))
        with self._steps.step(Step.VERIFY, "counts of all nodes against the manifest"):
            self._verify(manifest, nodes, ready)

    def _verify(self, manifest: Manifest, nodes: Nodes, ready: Mapping[str, VersionStatus]) -> None:
        """As a load does, but that nodes which held it all the while read its samples when it was new."""
        whole = {name: one for name, one in ready.items() if one.state is State.READY}
        if len(whole) == len(ready):
            verify(manifest, nodes.topology, ready, shards_elsewhere(nodes.topology, ready))

    def _manifest(self, dataset: str, target: DesiredVersion) -> Manifest:
        stored = self.documents.manifest(dataset, target.version)
        if stored is None or stored[0].build_id != target.build_id:
            message = (
                f"a node does not hold {dataset} {target.version} any more, and neither does the store: choose another version of "
                f"`redkv versions {dataset}`"
            )
            raise NoWayBackError(message, dataset=dataset, version=target.version)
        return stored[0]

    def _activate(self, dataset: str, target: DesiredVersion, nodes: Nodes, left: str | None, mark: BadVersion | None) -> SwapReport:
        with self._steps.step(Step.ACTIVATE, f"{target.version} instead of {left or 'none'}, one durable write per shard"):
            reached = self._steps.reach(
                nodes,
                Step.ACTIVATE,
                (dataset, target.version, target.build_id),
                State.ACTIVE,
                lambda desired: swapped(desired, dataset, target.version, left, mark),
            )
        return SwapReport(
            dataset=dataset,
            version=target.version,
            build_id=target.build_id,
            left=left,
            marked_bad=mark is not None,
            changed=True,
            swap_window_s=window_of(nodes.topology, reached),
            seconds=dict(self._steps.seconds),
        )

    def _finish(self, dataset: str, target: DesiredVersion, nodes: Nodes, answers: Mapping[str, Answer]) -> SwapReport:
        """Clients shall read it already: nothing to do, or nothing but to wait."""
        if not _serve(dataset, target, answers):
            return self._activate(dataset, target, nodes, None, None)
        self._steps.note(f"{dataset} {target.version} is active already: nothing to do")
        return SwapReport(dataset, target.version, target.build_id, left=None, marked_bad=False, changed=False)


def _held(dataset: str, target: DesiredVersion, answers: Mapping[str, Answer]) -> bool:
    """Whether all nodes that answer hold a version ready to be read. One that is away follows when it is back."""
    return all(_ranks(one, dataset, target, State.READY) for one in answers.values() if isinstance(one, NodeStatus))


def _serve(dataset: str, target: DesiredVersion, answers: Mapping[str, Answer]) -> bool:
    return all(_ranks(one, dataset, target, State.ACTIVE) for one in answers.values() if isinstance(one, NodeStatus))


def _ranks(node: NodeStatus, dataset: str, target: DesiredVersion, state: State) -> bool:
    found = node.find(dataset, target.version)
    return found is not None and found.build_id == target.build_id and RANK[found.state] >= RANK[state]
