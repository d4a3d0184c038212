"""The coordinator: one load from a spec to an active version.

plan → build → stage everywhere → (barrier) → ingest → verify → activate → retire

Rules:
- All state is in the store and on the nodes. Whoever calls `load` again goes on from where the version stands; a version that is
  active everywhere is nothing to do.
- No client sees a version before every node has it ready and its counts and samples add up.
- A version that failed for good is withdrawn from the desired state, and the nodes confirm it, so that the same command can be tried again
  at once; the version that was active stays active. A stall, or a store that this process can't reach, withdraws nothing.
- It knows no terminal: what happens goes to the listener as events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import (
    ConcurrentLoadError,
    LoadError,
    ObjectMissingError,
    Outcome,
    RedkvError,
    StalledError,
    StoreError,
    UsageError,
)
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.load.build import run_build
from pipeline.load.documents import (
    Change,
    ClusterDocuments,
    check_prefix,
    last_writer,
    next_rebuild,
    with_goal,
    with_retained,
    with_version,
    without_version,
)
from pipeline.load.nodes import LOOK_S_MAX, Nodes
from pipeline.load.progress import BuildSeen, Listener, LoadReport, Noted, Step, StepBegan, StepEnded
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.verification import check_size, verify
from pipeline.load.waiting import Patience, Target, Watch, failed_for_good
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec, check_version, load_spec, parse_spec
from pipeline.store import ObjectStore

RETIRED_MAX = 1  # the version before the active one stays on the nodes: the way back


class Coordinator:
    """Loads versions onto one cluster, one at a time."""

    def __init__(
        self,
        settings: ClusterSettings,
        listener: Listener,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
        self._listener = listener
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._seconds: dict[str, float] = {}

    def load(self, spec_path: Path, version: str, log: Path, *, allow_shrink: bool = False) -> LoadReport:
        """Bring one version of one dataset to its readers; `log` takes the build job's output.

        A version with less than SHRINK_MIN of the active one's rows is refused, unless `allow_shrink`.

        Raises:
            SpecError, UsageError: the input can't be loaded as it is; nothing was changed.
            RedkvError: the load failed, as named; the version that was active serves on.
        """
        self._seconds = {}
        with self._step(Step.PLAN, f"reading {spec_path}"):
            spec = load_spec(spec_path)
            check_version(version)
            topology = self.documents.topology()
            if topology.unowned():
                raise LoadError(f"cluster {topology.cluster} has {topology.unowned()} slots without an owner: repair the topology first")
            desired = self.documents.desired()
            _check_order(desired, spec, version)
            check_prefix(desired, spec.dataset, spec.prefix)
        manifest, digest = self._built(spec, spec_path, version, log)
        desired = self.documents.desired()  # another load may have written while this one built
        with Nodes(topology, self.settings.sidecar_token) as nodes:
            if _is_active(desired, manifest):
                return self._finish(desired, manifest, nodes)
            _check_order(desired, spec, version)
            if not allow_shrink:
                self._refuse_shrunk(desired, manifest)
            return self._bring(desired, manifest, digest, nodes)

    def _built(self, spec: DatasetSpec, spec_path: Path, version: str, log: Path) -> tuple[Manifest, str]:
        found = self.documents.manifest(spec.dataset, version)
        if found is None:
            with self._step(Step.BUILD, f"spark-submit on {self.settings.spark_master}, log in {log}"):
                self._build(spec_path, version, log)
            found = self.documents.manifest(spec.dataset, version)
            if found is None:
                raise ObjectMissingError(f"the build job of {spec.dataset} {version} ended well, but its manifest is not in the store")
        else:
            self._note(f"{spec.dataset} {version} is built already (build {found[0].build_id})")
        if parse_spec(found[0].spec, "the manifest's spec") != spec:
            message = (
                f"{spec.dataset} {version} was built from another spec: choose a new version id (e.g. {next_rebuild(version)}), "
                f"or restore the spec"
            )
            raise UsageError(message, dataset=spec.dataset, version=version)
        return found

    def _build(self, spec_path: Path, version: str, log: Path) -> None:
        def tell(seconds: float, stage: str) -> None:
            self._listener(BuildSeen(seconds, stage))

        try:
            run_build(self.settings, spec_path, version, log, tell=tell, seconds_max=self._patience.build_s_max)
        except RedkvError:
            self._note(f"the build's log is {log}")
            raise

    def _refuse_shrunk(self, desired: Desired, manifest: Manifest) -> None:
        current = desired.datasets.get(manifest.dataset)
        before = self.documents.manifest(manifest.dataset, current.active.version) if current and current.active else None
        if before is not None:
            check_size(manifest, before[0])

    def _finish(self, desired: Desired, manifest: Manifest, nodes: Nodes) -> LoadReport:
        """Of a version whose activation is written: nothing to do, unless its load was interrupted after that."""
        name, version = manifest.dataset, manifest.version
        answers = nodes.statuses()
        away = [node for node, one in answers.items() if not isinstance(one, NodeStatus)]
        behind = [node for node, one in answers.items() if isinstance(one, NodeStatus) and not _serves(one, manifest)]
        if not behind and with_retained(name, RETIRED_MAX)(desired) == desired:
            if away:
                self._note(f"{', '.join(away)} can't be asked, and will follow without help: see `redkv status {name}`")
            self._note(f"{name} {version} is active already: nothing to do")
            return self._report(manifest, changed=False)
        self._note(f"{name} {version}: its activation was written before; going on from there")
        return self._activate(manifest, nodes, None)

    def _bring(self, desired: Desired, manifest: Manifest, digest: str, nodes: Nodes) -> LoadReport:
        name, version = manifest.dataset, manifest.version
        entry = DesiredVersion(
            version=version,
            build_id=manifest.build_id,
            manifest_key=manifest_key(name, version),
            manifest_sha256=digest,
            goal=Goal.STAGED,
        )
        self._clear_failed(desired, manifest, nodes)
        try:
            with self._step(Step.STAGE, f"{len(manifest.files)} files, {manifest.totals.bytes} bytes"):
                self._reach(manifest, nodes, Step.STAGE, State.STAGED, with_version(name, manifest.prefix, entry))
            with self._step(Step.INGEST, "into a version directory of its own per shard"):
                ready = self._reach(manifest, nodes, Step.INGEST, State.READY, with_goal(name, version, Goal.READY))
            with self._step(Step.VERIFY, "counts and samples of all nodes against the manifest"):
                samples = verify(manifest, ready)
            return self._activate(manifest, nodes, samples)
        except RedkvError as failure:
            if _is_final(failure):
                self._withdraw(name, version, nodes)
            raise

    def _activate(self, manifest: Manifest, nodes: Nodes, verified: int | None) -> LoadReport:
        """Activate and retire; `verified` samples, or None where another load verified, and wrote the activation."""
        name = manifest.dataset
        with self._step(Step.ACTIVATE, "one durable write per shard"):
            began = self._clock()
            reached = self._reach(manifest, nodes, Step.ACTIVATE, State.ACTIVE, with_goal(name, manifest.version, Goal.ACTIVE))
            window = self._clock() - began
        with self._step(Step.RETIRE, f"the newest {RETIRED_MAX} retired version stays as the way back"):
            self.documents.change(with_retained(name, RETIRED_MAX))
            nodes.wake()
        if verified is None:
            return self._report(manifest, changed=True, samples=sum(one.samples_checked for one in reached.values()))
        return self._report(manifest, changed=True, samples=verified, window=window)

    def _reach(self, manifest: Manifest, nodes: Nodes, step: Step, state: State, change: Change) -> dict[str, VersionStatus]:
        """Write a change, and wait until every node has brought the version to `state`."""
        epoch = self.documents.change(change).epoch
        nodes.wake()

        def still_wanted() -> None:
            desired = self.documents.desired()
            if change(desired) != desired:
                message = (
                    f"{manifest.dataset} {manifest.version} was taken back by another load ({last_writer(desired)}): see `redkv status`"
                )
                raise ConcurrentLoadError(message, dataset=manifest.dataset, version=manifest.version)

        target = Target(manifest.dataset, manifest.version, state, epoch, manifest.build_id)
        return self._watch(nodes, still_wanted).until(target, step)

    def _clear_failed(self, desired: Desired, manifest: Manifest, nodes: Nodes) -> None:
        """A failure that an earlier load left behind stands on its nodes until the version is withdrawn."""
        name, version = manifest.dataset, manifest.version
        current = desired.datasets.get(name)
        if current is None or current.find(version) is None:
            return
        seen = {node: one.find(name, version) for node, one in nodes.statuses().items() if isinstance(one, NodeStatus)}
        failed = [node for node, one in seen.items() if one is not None and failed_for_good(one)]
        if failed:
            self._note(f"{name} {version} failed before on {', '.join(failed)}: beginning anew")
            self._withdraw(name, version, nodes)

    def _withdraw(self, dataset: str, version: str, nodes: Nodes) -> None:
        """Take a version back, and wait a moment until its nodes confirm it. A failure here is told; the one that led here counts."""
        try:
            desired = self.documents.change(without_version(dataset, version))
            current = desired.datasets.get(dataset)
            if current is not None and current.find(version) is not None:
                return  # clients read it: another load brought it through
            nodes.wake()
            left = self._watch(nodes).until_gone(dataset, version, desired.epoch)
            away = [node for node, one in nodes.statuses(LOOK_S_MAX).items() if not isinstance(one, NodeStatus)]
        except RedkvError as failure:
            self._note(f"{dataset} {version} could not be withdrawn ({failure}): the same command does it when the cause is gone")
            return
        self._note(f"{dataset} {version} was withdrawn; what clients read is as before")
        if away:
            self._note(f"{', '.join(away)} can't be asked, and will drop it when back")
        if left:
            self._note(f"{', '.join(left)} did not confirm that yet: look at `redkv status` before you try again")

    def _watch(self, nodes: Nodes, check: Callable[[], None] = lambda: None) -> Watch:
        return Watch(nodes, self._listener, self._patience, self._clock, self._sleep, check)

    def _note(self, message: str) -> None:
        self._listener(Noted(message))

    @contextmanager
    def _step(self, step: Step, message: str) -> Iterator[None]:
        self._listener(StepBegan(step, message))
        began = self._clock()
        try:
            yield
        finally:
            self._seconds[str(step)] = self._clock() - began
            self._listener(StepEnded(step, self._seconds[str(step)]))

    def _report(self, manifest: Manifest, *, changed: bool, samples: int = 0, window: float | None = None) -> LoadReport:
        total = manifest.totals
        return LoadReport(
            dataset=manifest.dataset,
            version=manifest.version,
            build_id=manifest.build_id,
            changed=changed,
            source_rows=total.source_rows,
            skipped=total.skipped,
            keys=total.keys,
            bytes=total.bytes,
            samples_checked=samples,
            swap_window_s=window,
            seconds=dict(self._seconds),
        )


def _check_order(desired: Desired, spec: DatasetSpec, version: str) -> None:
    current = desired.datasets.get(spec.dataset)
    active = current.active if current else None
    if active and version_order(version) < version_order(active.version):
        message = (
            f"{spec.dataset} {version} is older than the active version {active.version}: choose a newer version id, "
            f"e.g. {next_rebuild(active.version)}"
        )
        raise UsageError(message, dataset=spec.dataset, version=version, active=active.version)


def _is_active(desired: Desired, manifest: Manifest) -> bool:
    current = desired.datasets.get(manifest.dataset)
    active = current.active if current else None
    return active is not None and (active.version, active.build_id) == (manifest.version, manifest.build_id)


def _serves(node: NodeStatus, manifest: Manifest) -> bool:
    found = node.find(manifest.dataset, manifest.version)
    return found is not None and (found.build_id, found.state) == (manifest.build_id, State.ACTIVE)


def _is_final(failure: RedkvError) -> bool:
    """Whether a failure says something of the version, so that waiting longer would not help. This process' own store says nothing."""
    own_store = isinstance(failure, StoreError) and "node" not in failure.fields
    return failure.outcome is Outcome.FATAL and not isinstance(failure, StalledError) and not own_store
