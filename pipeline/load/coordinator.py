"""The coordinator: one load from a spec to an active version.

plan → build → stage everywhere → (barrier) → ingest → verify → activate → retire

Rules:
- All state is in the store and on the nodes. Whoever calls `load` again goes on from where the version stands; a version that is
  active already is nothing to do.
- No client sees a version before every node has it ready and its counts and samples add up.
- A version that failed for good is withdrawn from the desired state, so that nodes clean up and the same command can be tried again;
  the version that was active stays active.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import (
    CountMismatchError,
    LoadError,
    ObjectMissingError,
    Outcome,
    RedkvError,
    ShrunkVersionError,
    StalledError,
    UsageError,
)
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.load.build import run_build
from pipeline.load.documents import ClusterDocuments, check_prefix, with_goal, with_retained, with_version, without_version
from pipeline.load.nodes import Nodes
from pipeline.load.progress import Listener, LoadReport, Step
from pipeline.load.states import State
from pipeline.load.status import VersionStatus
from pipeline.load.waiting import Patience, Target, Watch
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec, check_version, load_spec, parse_spec
from pipeline.store import ObjectStore

SHRINK_MIN = 0.5  # an upstream job that lost half its rows is likelier than a table that did
RETIRED_MAX = 1  # the version before the active one stays on the nodes: the way back


class Coordinator:
    """Loads versions onto one cluster."""

    def __init__(
        self, settings: ClusterSettings, listener: Listener, patience: Patience | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
        self._listener = listener
        self._patience = patience or Patience()
        self._clock = clock
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
        if _is_active(desired, manifest):
            self._listener.note(f"{spec.dataset} {version} is active already: nothing to do")
            return self._report(manifest, changed=False)
        if not allow_shrink:
            self._refuse_shrunk(desired, manifest)
        with Nodes(topology) as nodes:
            return self._bring(manifest, digest, nodes)

    def _built(self, spec: DatasetSpec, spec_path: Path, version: str, log: Path) -> tuple[Manifest, str]:
        found = self.documents.manifest(spec.dataset, version)
        if found is None:
            with self._step(Step.BUILD, f"spark-submit on {self.settings.spark_master}, log in {log}"):
                run_build(self.settings, spec_path, version, log)
            found = self.documents.manifest(spec.dataset, version)
            if found is None:
                raise ObjectMissingError(f"the build job of {spec.dataset} {version} ended well, but its manifest is not in the store")
        elif parse_spec(found[0].spec, "the manifest's spec") != spec:
            message = (
                f"{spec.dataset} {version} was built from another spec: choose a new version id (e.g. {version}.2), or restore the spec"
            )
            raise UsageError(message, dataset=spec.dataset, version=version)
        else:
            self._listener.note(f"{spec.dataset} {version} is built already (build {found[0].build_id})")
        return found

    def _refuse_shrunk(self, desired: Desired, manifest: Manifest) -> None:
        current = desired.datasets.get(manifest.dataset)
        before = self.documents.manifest(manifest.dataset, current.active.version) if current and current.active else None
        if before is not None:
            check_size(manifest, before[0])

    def _bring(self, manifest: Manifest, digest: str, nodes: Nodes) -> LoadReport:
        watch = Watch(nodes, self._listener, self._patience, self._clock)
        name, version = manifest.dataset, manifest.version
        entry = DesiredVersion(
            version=version,
            build_id=manifest.build_id,
            manifest_key=manifest_key(name, version),
            manifest_sha256=digest,
            goal=Goal.STAGED,
        )
        try:
            with self._step(Step.STAGE, f"{len(manifest.files)} files, {manifest.totals.bytes} bytes"):
                epoch = self.documents.change(with_version(name, manifest.prefix, entry)).epoch
                self._await(watch, Target(name, version, State.STAGED, epoch), Step.STAGE)
            with self._step(Step.INGEST, "into a version directory of its own per shard"):
                epoch = self.documents.change(with_goal(name, version, Goal.READY)).epoch
                ready = self._await(watch, Target(name, version, State.READY, epoch), Step.INGEST)
            with self._step(Step.VERIFY, "counts and samples of all nodes against the manifest"):
                samples = verify(manifest, ready)
        except RedkvError as failure:
            if failure.outcome is Outcome.FATAL and not isinstance(failure, StalledError):
                self._withdraw(name, version, nodes)
            raise
        with self._step(Step.ACTIVATE, "one durable write per shard"):
            began = self._clock()
            epoch = self.documents.change(with_goal(name, version, Goal.ACTIVE)).epoch
            self._await(watch, Target(name, version, State.ACTIVE, epoch), Step.ACTIVATE)
            window = self._clock() - began
        with self._step(Step.RETIRE, f"the newest {RETIRED_MAX} retired version stays as the way back"):
            self.documents.change(with_retained(name, RETIRED_MAX))
            nodes.wake()
        return self._report(manifest, changed=True, samples=samples, window=window)

    def _await(self, watch: Watch, target: Target, step: Step) -> dict[str, VersionStatus]:
        watch.nodes.wake()
        return watch.until(target, step)

    def _withdraw(self, dataset: str, version: str, nodes: Nodes) -> None:
        self.documents.change(without_version(dataset, version))
        nodes.wake()
        self._listener.note(f"{dataset} {version} was withdrawn; the version that was active serves on")

    @contextmanager
    def _step(self, step: Step, message: str) -> Iterator[None]:
        self._listener.step(step, message)
        began = self._clock()
        try:
            yield
        finally:
            self._seconds[str(step)] = self._clock() - began

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


def verify(manifest: Manifest, nodes: Mapping[str, VersionStatus]) -> int:
    """Whether all shards together hold what the manifest promises; the number of sampled keys read back.

    Raises:
        CountMismatchError: they do not.
    """
    shards = [shard for node in nodes.values() for shard in node.shards.values()]
    found = {
        "keys": sum(one.keys for one in shards),
        "entries": sum(one.entries for one in shards),
        "samples": sum(node.samples_checked for node in nodes.values()),
    }
    promised = {"keys": manifest.totals.keys, "entries": manifest.totals.entries, "samples": len(manifest.samples)}
    for what, count in promised.items():
        if found[what] != count:
            message = f"{manifest.dataset} {manifest.version}: the nodes together report {found[what]} {what}, the manifest has {count}"
            raise CountMismatchError(message, what=what, found=found[what], promised=count)
    return found["samples"]


def check_size(manifest: Manifest, before: Manifest) -> None:
    """Whether a version is not suspiciously small.

    Raises:
        ShrunkVersionError: it holds less than SHRINK_MIN of the rows of the version before.
    """
    rows, old = manifest.totals.stored_rows, before.totals.stored_rows
    if rows < SHRINK_MIN * old:
        message = (
            f"{manifest.dataset} {manifest.version} holds {rows} rows, the active version {before.version} holds {old}: look whether the "
            f"table is complete, and pass --allow-shrink if it is"
        )
        raise ShrunkVersionError(message, dataset=manifest.dataset, version=manifest.version, rows=rows, before=old)


def _check_order(desired: Desired, spec: DatasetSpec, version: str) -> None:
    current = desired.datasets.get(spec.dataset)
    active = current.active if current else None
    if active and version_order(version) < version_order(active.version):
        message = f"{spec.dataset} {version} is older than the active version {active.version}: choose a newer version id"
        raise UsageError(message, dataset=spec.dataset, version=version, active=active.version)


def _is_active(desired: Desired, manifest: Manifest) -> bool:
    current = desired.datasets.get(manifest.dataset)
    active = current.active if current else None
    return active is not None and (active.version, active.build_id) == (manifest.version, manifest.build_id)
