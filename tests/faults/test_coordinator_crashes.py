"""The coordinator dies at each of its points, and another one takes over: the same end, and nothing twice that costs data or minutes.

In `make test`, an exception is raised at the points, in this process; in `make test-full`, the real command kills itself there, or is
killed at any moment.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path

import pytest

from ingest_sidecar.plan import plan
from pipeline.format.manifest import Manifest
from pipeline.load import coordinator, steps, turn
from pipeline.load.coordinator import Coordinator
from pipeline.load.documents import with_retained
from pipeline.load.progress import LoadReport, Step
from pipeline.load.queue import Queue
from pipeline.load.states import State
from pipeline.load.steps import COORDINATOR_POINTS, coordinator_point
from pipeline.load.waiting import Patience
from pipeline.settings import Keep
from pipeline.spec import DatasetSpec
from tests.support.builds import hash_spec
from tests.support.clusters import ROWS, Cluster, running_cluster
from tests.support.crash import Trap
from tests.support.listener import Recorder
from tests.support.s3 import S3
from tests.support.sidecars import CLUSTER

BUILT = coordinator_point(Step.BUILD, "written")
NOT_OF_A_SWAP = {Step.BUILD, Step.QUEUE, Step.RETIRE}
SWAP_POINTS = [one for one in COORDINATOR_POINTS if one.split(".")[1] not in NOT_OF_A_SWAP]
SHORT = {coordinator_point(step, "written") for step in (Step.STAGE, Step.INGEST, Step.ACTIVATE)}  # what is written is what stays
KILLS = 8  # at random moments of one load
ALIVE_S = (0.3, 2.5)  # of a command that is killed: from before its first look at the store to after its end

_BYTES = re.compile(r'^redkv_sidecar_bytes_total\{step="(\w+)"\} (\S+)$', re.MULTILINE)


class DiedError(Exception):
    """What is raised where a coordinator would die."""


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("die")) as one:
        yield one


versions = (f"2026-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 29))
names = (f"dies-{number}" for number in count())


@pytest.fixture
def spec(cluster: Cluster) -> DatasetSpec:
    """A dataset of which a version is read."""
    one = next(names)
    made = hash_spec(one, f"{one}:${{id}}")
    cluster.load(made, next(versions))
    return made


@pytest.fixture
def builds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The versions that were built: in this process, not by Spark."""
    built: list[str] = []

    def build(_settings: object, spec_path: Path, version: str, _log: Path, *, base: str | None, **_more: object) -> None:
        built.append(version)
        cluster.build(hash_spec(spec_path.stem, f"{spec_path.stem}:${{id}}"), version, base)

    with monkeypatch.context() as patch:
        patch.setattr(coordinator, "run_build", build)
        yield built


@pytest.fixture
def dying_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Do something that dies at a point."""

    def dying(point: str, work: Callable[[], object]) -> None:
        def crash_point(name: str) -> None:
            if name == point:
                raise DiedError

        with monkeypatch.context() as patch:
            for module in (coordinator, steps, turn):
                patch.setattr(module, "crash_point", crash_point)
            with pytest.raises(DiedError):
                work()

    return dying


def load(cluster: Cluster, spec: DatasetSpec, version: str, base: str | None = None) -> LoadReport:
    one = Coordinator(cluster.settings, Recorder(), Patience(stall_s_max=60))
    return one.load(cluster.spec_file(spec), version, cluster.folder / "build.log", base=base)


def moved(cluster: Cluster) -> Counter[str]:
    """The bytes that all nodes staged and ingested so far."""
    texts = [node.ask("GET", "metrics").text for node in cluster.nodes]
    return sum((Counter({step: int(float(told)) for step, told in _BYTES.findall(text)}) for text in texts), Counter())


def once(cluster: Cluster, spec: DatasetSpec, version: str) -> Counter[str]:
    """The bytes that nodes move for a version that they get once."""
    manifest = manifest_of(cluster, spec, version)
    topology = cluster.documents.topology()
    size = sum(plan(manifest, {shard.name: shard.slots}).bytes for shard in topology.shards)
    return Counter(stage=size, ingest=size)


def manifest_of(cluster: Cluster, spec: DatasetSpec, version: str) -> Manifest:
    found = cluster.documents.manifest(spec.dataset, version)
    assert found is not None
    return found[0]


def swaps(cluster: Cluster, spec: DatasetSpec, version: str) -> dict[str, int]:
    """When each shard swapped to a version."""
    found = (node.status().find(spec.dataset, version) for node in cluster.nodes)
    return {shard: at for one in found if one is not None for shard, at in one.activated_ms.items()}


def active(cluster: Cluster, spec: DatasetSpec) -> str:
    one = cluster.dataset(spec).active
    assert one is not None
    return one.version


def check_end(cluster: Cluster, spec: DatasetSpec, version: str, before: str, base: str | None = None) -> None:
    """As if nothing had happened: one deed of each kind, and nothing to do."""
    assert cluster.served(spec) == {version} | ({base} if base else set())
    assert cluster.goals(spec) == {before: "retired", version: "active"}
    assert Counter(deed for deed in cluster.deeds(spec) if deed[1] == version) == {("load", version): 1, ("activate", version): 1}
    assert [one.version for one in cluster.history(spec) if one.action == "build"].count(version) == 1
    desired = cluster.desired()
    assert not load(cluster, spec, version).changed
    assert cluster.desired() == desired


@pytest.mark.parametrize(("point", "kind"), list(zip(COORDINATOR_POINTS, cycle(("delta", "full")))))
def test_a_load_that_died_at_a_point_is_ended_by_another(
    cluster: Cluster, spec: DatasetSpec, builds: list[str], dying_at: Callable[[str, Callable[[], object]], None], point: str, kind: str
) -> None:
    """Of a full version, or of a delta on the one that clients read."""
    before, version, had = active(cluster, spec), next(versions), moved(cluster)
    base = before if kind == "delta" else None
    dying_at(point, lambda: load(cluster, spec, version, base))
    swapped = swaps(cluster, spec, version)
    written = point.startswith(("coordinator.activate.written", "coordinator.retire"))  # from then on nodes swap by themselves
    if not written:
        assert cluster.served(spec) == {before}
        assert swapped == {}
    report = load(cluster, spec, version, base)
    assert (report.keys, report.base) == (ROWS, base)
    assert report.changed or written
    check_end(cluster, spec, version, before, base)
    assert builds == [version]
    assert moved(cluster) - had == once(cluster, spec, version)
    assert swaps(cluster, spec, version).items() >= swapped.items()  # no shard swaps again
    assert Queue(cluster.store, CLUSTER).read().loads == ()


@pytest.mark.parametrize("point", [one if one in SHORT else pytest.param(one, marks=pytest.mark.full) for one in SWAP_POINTS])
def test_a_rollback_that_died_at_a_point_is_ended_by_another_and_goes_no_further(
    cluster: Cluster, spec: DatasetSpec, dying_at: Callable[[str, Callable[[], object]], None], point: str
) -> None:
    """To a version that one node lacks; what retention does meanwhile takes it from nobody."""
    cluster.more_settings = "[retention.nodes]\nversions = 3"
    older, version = active(cluster, spec), next(versions)
    try:
        for one in (version, newest := next(versions)):
            cluster.load(spec, one)
    finally:
        cluster.more_settings = ""
    lost = lose(cluster, spec, version)
    had, written = moved(cluster), point == coordinator_point(Step.ACTIVATE, "written")
    dying_at(point, lambda: cluster.swapper().rollback(spec.dataset))
    if not written:
        assert cluster.served(spec) == {newest}
        cluster.documents.change(with_retained(spec.dataset, Keep(versions=1), cluster.documents.now_ms()))
    assert cluster.swapper().rollback(spec.dataset, version if written else None).version == version
    assert cluster.served(spec) == {version}
    assert cluster.goals(spec) == ({older: "retired"} if written else {}) | {version: "active", newest: "retired"}
    assert cluster.deeds(spec).count(("rollback", version)) == 1
    assert moved(cluster) - had == Counter(stage=lost, ingest=lost)


def lose(cluster: Cluster, spec: DatasetSpec, version: str) -> int:
    """One node loses a version that clients do not read; the bytes of it."""
    node, shard = cluster.nodes[1], cluster.shards[1]
    shutil.rmtree(shard.paths.version(spec.dataset, version))
    node.wake()
    node.until(spec.dataset, version, State.ABSENT)
    found = next(one for one in cluster.documents.topology().shards if one.name == shard.name)
    return plan(manifest_of(cluster, spec, version), {found.name: found.slots}).bytes


def command(cluster: Cluster, spec: DatasetSpec, version: str) -> list[str]:
    settings, document = str(cluster.settings_file), str(cluster.spec_file(spec))
    return [sys.executable, "-m", "pipeline.cli", "--config", settings, "load", document, "--version", version]


@pytest.mark.full
@pytest.mark.parametrize("point", [one for one in COORDINATOR_POINTS if one != BUILT])  # after a build comes the queue: nothing is between
def test_a_real_command_that_kills_itself_at_a_point(cluster: Cluster, spec: DatasetSpec, tmp_path: Path, point: str) -> None:
    before, version, had = active(cluster, spec), next(versions), moved(cluster)
    building = point == coordinator_point(Step.BUILD, "begun")
    if not building:
        cluster.build(spec, version)
    words = command(cluster, spec, version)[3:]
    killed = cluster.redkv(*words[2:], environment=Trap(point, tmp_path).environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if building:
        cluster.build(spec, version)
    load(cluster, spec, version)
    check_end(cluster, spec, version, before)
    assert moved(cluster) - had == once(cluster, spec, version)
    assert Queue(cluster.store, CLUSTER).read().loads == ()


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_a_real_command_that_is_killed_again_and_again_at_any_moment(cluster: Cluster, spec: DatasetSpec, seed: int) -> None:
    source = random.Random(seed)
    before, version, had = active(cluster, spec), next(versions), moved(cluster)
    cluster.build(spec, version)
    for _ in range(KILLS):
        with subprocess.Popen(command(cluster, spec, version), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            try:
                running.wait(source.uniform(*ALIVE_S))
            except subprocess.TimeoutExpired:
                running.kill()
    load(cluster, spec, version)
    check_end(cluster, spec, version, before)
    assert moved(cluster) - had == once(cluster, spec, version)
