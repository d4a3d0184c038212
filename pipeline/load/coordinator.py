"""The coordinator: one load from a spec to an active version.

plan → build → (its turn) → stage everywhere → (barrier) → ingest → verify → activate → retire

Rules:
- All state is in the store and on the nodes. Whoever calls `load` again goes on from where the version stands; a version that is
  active everywhere is nothing to do.
- No client sees a version before every node has it ready and its counts and samples add up; or every slot has an owner or replica that
  does, if that is what the load requires.
- So many loads bring versions to a cluster at once as its settings say; the others wait for their turn (queue.py). Builds are Spark's.
- A version that failed for good is withdrawn from the desired state, and the nodes confirm it, so that the same command can be tried again
  at once; the version that was active stays active. A stall, or a store that this process can't reach, withdraws nothing.
- It knows no terminal: what happens goes to the listener as events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.format.crashpoints import crash_point
from pipeline.format.desired import Desired
from pipeline.format.errors import ObjectMissingError, RedkvError
from pipeline.format.manifest import Manifest
from pipeline.load.build import run_build
from pipeline.load.coverage import Require, check_covered, shards_elsewhere, window_of
from pipeline.load.documents import ClusterDocuments
from pipeline.load.modes import MODES
from pipeline.load.nodes import Nodes
from pipeline.load.phases import Built, Phases, active_of, check_order, is_final
from pipeline.load.progress import BuildSeen, Listener, LoadReport, Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.steps import Steps, coordinator_point
from pipeline.load.turn import in_turn, leave_queue
from pipeline.load.verification import verify
from pipeline.load.waiting import Patience
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec, load_spec
from pipeline.store import ObjectStore


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
        self.documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster, name=settings.author)
        self._steps = Steps(self.documents, listener, patience or Patience(), clock, sleep)
        self._phases = Phases(self.documents, self._steps, settings.retention.nodes)

    def load(
        self,
        spec_path: Path,
        version: str,
        log: Path,
        *,
        allow_shrink: bool = False,
        require: Require = Require.ALL,
        priority: int = 0,
        base: str | None = None,
    ) -> LoadReport:
        """Bring one version of one dataset to its readers; `log` takes the build job's output. With a `base` (a version, or ACTIVE_BASE)
        it is built as a delta on that one, unless it is built already.

        A version with less than SHRINK_MIN of the active one's rows is refused, unless `allow_shrink`. `require` says which nodes must be
        there, `priority` which of the loads that wait go first.

        Raises:
            SpecError, UsageError: the input can't be loaded as it is; nothing was changed.
            RedkvError: the load failed, as named; the version that was active serves on.
        """
        self._steps.seconds = {}
        self._steps.require = require
        self._steps.let_go.clear()
        with self._steps.step(Step.PLAN, f"reading {spec_path}"):
            spec = load_spec(spec_path)
            topology = self._phases.check(spec, version)
            on = self._phases.lies_on(spec, version, base) if base is not None else None
        built = self._built(spec, spec_path, version, log, on)
        with Nodes(topology, self.settings.sidecar_token) as nodes:
            desired = self._judged(built, allow_shrink=allow_shrink)  # another load may have written while this one built
            if _is_active(desired, built.manifest):
                leave_queue(self.documents, spec.dataset, version)
                return self._finish(desired, built, nodes)
            with in_turn(self._steps, spec.dataset, version, priority, self.settings.loads_max):
                nodes.topology = self.documents.topology()
                desired = self._judged(built, allow_shrink=allow_shrink)  # or while it waited
                if _is_active(desired, built.manifest):
                    return self._finish(desired, built, nodes)
                if require is Require.ANY:
                    check_covered(nodes.topology, [name for name, one in nodes.statuses().items() if isinstance(one, NodeStatus)])
                return self._bring(built, nodes, None if allow_shrink else desired)

    def _judged(self, built: Built, *, allow_shrink: bool) -> Desired:
        """The desired state, in which the version is active, or may be put over what is."""
        desired, manifest = self.documents.desired(), built.manifest
        if not _is_active(desired, manifest):
            check_order(desired, manifest.dataset, manifest.version)
            if not allow_shrink:
                self._phases.check_shrunk(desired, built)
        return desired

    def _built(self, spec: DatasetSpec, spec_path: Path, version: str, log: Path, base: str | None) -> Built:
        found = self._phases.built(spec, version)
        if found is not None:
            self._steps.note(f"{spec.dataset} {version} is built already (build {found.manifest.build_id})")
            return found
        on = f", a delta on {base}" if base else ""
        with self._steps.step(Step.BUILD, f"spark-submit on {self.settings.spark_master}, log in {log}{on}"):
            self._build(spec_path, version, log, base)
            crash_point(coordinator_point(Step.BUILD, "written"))
        found = self._phases.built(spec, version)
        if found is None:
            raise ObjectMissingError(f"the build job of {spec.dataset} {version} ended well, but its manifest is not in the store")
        return found

    def _build(self, spec_path: Path, version: str, log: Path, base: str | None) -> None:
        def tell(seconds: float, stage: str) -> None:
            self._steps.listener(BuildSeen(seconds, stage))

        borders = self.documents.topology().borders()
        try:
            seconds_max = self._steps.patience.build_s_max
            run_build(self.settings, spec_path, version, log, tell=tell, seconds_max=seconds_max, shard_borders=borders, base=base)
        except RedkvError:
            self._steps.note(f"the build's log is {log}")
            raise

    def _finish(self, desired: Desired, built: Built, nodes: Nodes) -> LoadReport:
        """Of a version whose activation is written: nothing to do, unless its load was interrupted after that."""
        manifest = built.manifest
        name, version = manifest.dataset, manifest.version
        answers = nodes.statuses()
        away = [node for node, one in answers.items() if not isinstance(one, NodeStatus)]
        behind = [node for node, one in answers.items() if isinstance(one, NodeStatus) and not _serves(one, manifest)]
        if not behind and self._phases.retained(name)(desired) == desired:
            if away:
                self._steps.note(f"{', '.join(away)} can't be asked, and will follow without help: see `redkv status {name}`")
            self._steps.note(f"{name} {version} is active already: nothing to do")
            return self._report(manifest, changed=False)
        self._steps.note(f"{name} {version}: its activation was written before; going on from there")
        return self._activate(built, nodes, None)

    def _bring(self, built: Built, nodes: Nodes, measured: Desired | None) -> LoadReport:
        """Stage, ingest, verify, activate, retire; `measured` is what its size is compared with, None if any will do."""
        manifest = built.manifest
        self._phases.clear_failed(built, nodes)
        mode = MODES[manifest.mode]
        try:
            with self._steps.step(Step.STAGE, f"{len(manifest.files)} files, {manifest.totals.bytes} bytes"):
                self._phases.begin(Step.STAGE, built, nodes).done()
            with self._steps.step(Step.INGEST, mode.ingest):
                ready = self._phases.begin(Step.INGEST, built, nodes).done()
            with self._steps.step(Step.VERIFY, mode.verify):
                samples = verify(manifest, nodes.topology, ready, shards_elsewhere(nodes.topology, ready))
                if measured is not None:
                    self._phases.check_shrunk_by_nodes(measured, built, ready, nodes)
                before = self._phases.the_one_before(built, nodes)
                if before is not None:
                    before.done()
            return self._activate(built, nodes, samples)
        except RedkvError as failure:
            if is_final(failure):
                self._phases.withdraw(manifest.dataset, manifest.version, nodes, str(failure))
            raise

    def _activate(self, built: Built, nodes: Nodes, verified: int | None) -> LoadReport:
        """Activate and retire; `verified` samples, or None where another load verified, and wrote the activation."""
        manifest = built.manifest
        mode = MODES[manifest.mode]
        with self._steps.step(Step.ACTIVATE, mode.activate):
            reached = self._phases.begin(Step.ACTIVATE, built, nodes).done()
        with self._steps.step(Step.RETIRE, mode.retire):
            self.documents.change(self._phases.retained(manifest.dataset))
            crash_point(coordinator_point(Step.RETIRE, "written"))
            nodes.wake()
        self._note_changed(manifest, reached)
        read = sum(one.samples_checked for one in reached.values())
        if verified is None:
            return self._report(manifest, changed=True, samples=read)
        window = window_of(nodes.topology, reached)
        if manifest.mode == "upsert":
            window = self._steps.seconds[str(Step.ACTIVATE)]
        return self._report(manifest, changed=True, samples=verified or read, window=window)

    def _note_changed(self, manifest: Manifest, reached: Mapping[str, VersionStatus]) -> None:
        """Of an upsert, which samples read otherwise by now than at build time."""
        for node, one in reached.items():
            if one.samples_changed:
                self._steps.note(
                    f"{one.samples_changed} of {one.samples_checked} sampled keys of {manifest.dataset} on {node} read otherwise than they "
                    f"were built: that is as it should be if clients write them, and worth a look if not"
                )

    def _report(self, manifest: Manifest, *, changed: bool, samples: int = 0, window: float | None = None) -> LoadReport:
        total, whole = manifest.totals, manifest.in_all
        return LoadReport(
            dataset=manifest.dataset,
            version=manifest.version,
            build_id=manifest.build_id,
            changed=changed,
            source_rows=total.source_rows,
            skipped=total.skipped,
            keys=whole.keys if whole else total.keys,
            bytes=total.bytes,
            samples_checked=samples,
            swap_window_s=window,
            mode=manifest.mode,
            deletes=total.deletes,
            base=manifest.bases[0].version if manifest.bases else None,
            keys_put=total.keys,
            seconds=dict(self._steps.seconds),
        )


def _is_active(desired: Desired, manifest: Manifest) -> bool:
    active = active_of(desired, manifest.dataset)
    return active is not None and (active.version, active.build_id) == (manifest.version, manifest.build_id)


def _serves(node: NodeStatus, manifest: Manifest) -> bool:
    found = node.find(manifest.dataset, manifest.version)
    return found is not None and (found.build_id, found.state) == (manifest.build_id, State.ACTIVE)
