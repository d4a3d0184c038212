"""Loads that are interrupted, fail, meet each other or meet a node that is away: two real nodes, real S3, no Spark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
import yaml
from redis.cluster import ClusterNode, RedisCluster

from pipeline.format.desired import Desired
from pipeline.format.errors import ChecksumMismatchError, ConcurrentLoadError, StalledError
from pipeline.format.layout import topology_key
from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.load.coordinator import Coordinator
from pipeline.load.progress import LoadEvent, LoadReport, NodesSeen, Step, StepBegan
from pipeline.load.states import State
from pipeline.load.status import VersionStatus
from pipeline.load.waiting import Patience
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec
from pipeline.store import ObjectStore
from tests.support.builds import build, hash_spec
from tests.support.listener import OthersClock, Recorder
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, running_shards
from tests.support.sidecars import CLUSTER, NodeUnderTest

ROWS = 400
V1, V2 = "2026-11-21", "2026-11-22"
QUICK = Patience(stall_s_max=0.5)
PATIENT = Patience(withdraw_s_max=60)


class KilledError(Exception):
    """What a listener raises where a kill -9 would end the coordinator: no line of its own runs after that but `finally`."""


def dies(when: Callable[[LoadEvent], bool]) -> Callable[[LoadEvent], None]:
    def listen(event: LoadEvent) -> None:
        if when(event):
            raise KilledError

    return listen


def dies_at(step: Step) -> Callable[[LoadEvent], None]:
    return dies(lambda event: isinstance(event, StepBegan) and event.step is step)


@dataclass
class Cluster:
    """Two nodes of one shard each, and loads onto them."""

    folder: Path
    store: ObjectStore
    nodes: list[NodeUnderTest]
    shards: list[ShardProcess]

    @property
    def settings(self) -> ClusterSettings:
        return ClusterSettings(store=self.store.root, cluster=CLUSTER, metastore_uris="thrift://127.0.0.1:1", log_dir=self.folder)

    def write_settings(self) -> Path:
        path = self.folder / "redkv.toml"
        path.write_text(f'store = "{self.store.root}"\ncluster = "{CLUSTER}"\nmetastore_uris = "thrift://127.0.0.1:1"\n', encoding="utf-8")
        return path

    def spec_file(self, spec: DatasetSpec) -> Path:
        path = self.folder / f"{spec.dataset}.yaml"
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        return path

    def build(self, spec: DatasetSpec, version: str) -> list[str]:
        """Build a version; the keys of its files."""
        ids = [str(number) for number in range(ROWS)]
        manifest = build(self.store, spec, version, {"id": ids, "name": [f"{version} {one}" for one in ids]})
        return [one.object_key for one in manifest.files]

    def load(
        self,
        spec: DatasetSpec,
        version: str,
        listener: Callable[[LoadEvent], None] | None = None,
        patience: Patience = PATIENT,
        clock: Callable[[], float] = monotonic,
    ) -> LoadReport:
        coordinator = Coordinator(self.settings, listener or Recorder(), patience, clock)
        return coordinator.load(self.spec_file(spec), version, self.folder / "build.log")

    def desired(self) -> Desired:
        return Coordinator(self.settings, Recorder()).documents.desired()

    def served(self, spec: DatasetSpec) -> set[str]:
        """The versions that clients read, over all keys; "" where there is none."""
        seeds = [ClusterNode("127.0.0.1", self.shards[0].port)]  # type: ignore[no-untyped-call]
        with RedisCluster(startup_nodes=seeds, decode_responses=True) as client:
            pipeline = client.pipeline()
            for number in range(ROWS):
                pipeline.hget(f"{spec.prefix}{number}", "name")
            replies = pipeline.execute()
        assert all(reply is None or reply.endswith(f" {number}") for number, reply in enumerate(replies))
        return {"" if reply is None else reply.partition(" ")[0] for reply in replies}

    def flip_a_byte(self, key: str) -> bytes:
        """Damage an object; its bytes as they were."""
        good = self.store.get(key).data
        self.put(key, good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
        return good

    def put(self, key: str, data: bytes) -> None:
        self.store.delete(key)
        self.store.create(key, data)


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("resume")
    with running_shards(folder, 2) as shards, ExitStack() as stack:
        nodes = []
        for name, shard in zip("ab", shards, strict=True):
            (folder / name).mkdir()
            nodes.append(NodeUnderTest(folder / name, server.url, server.environment, [shard], name=name))
        slots = even_ranges(2)
        topology = Topology(
            cluster=CLUSTER,
            epoch=1,
            nodes=tuple(
                Node(
                    name=node.name,
                    sidecar_url=f"http://127.0.0.1:{node.port}",
                    shards=(Shard(name=shard.name, host="127.0.0.1", port=shard.port, slots=(part,)),),
                )
                for node, shard, part in zip(nodes, shards, slots, strict=True)
            ),
        )
        server.store.create(topology_key(CLUSTER), topology.to_json())
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        yield Cluster(folder, server.store, nodes, shards)


def test_an_activation_that_was_written_and_never_seen_is_gone_on_with(cluster: Cluster) -> None:
    spec = hash_spec("written", "written:${id}")
    cluster.build(spec, V1)
    cluster.load(spec, V1)
    cluster.build(spec, V2)

    def activating(event: LoadEvent) -> bool:
        return isinstance(event, NodesSeen) and event.step is Step.ACTIVATE

    with pytest.raises(KilledError):
        cluster.load(spec, V2, dies(lambda event: activating(event) or (isinstance(event, StepBegan) and event.step is Step.RETIRE)))
    cluster.load(spec, V2)
    assert cluster.served(spec) == {V2}


def test_more_versions_than_are_kept_go_though_the_load_that_had_to_do_it_was_killed(cluster: Cluster) -> None:
    spec = hash_spec("surplus", "surplus:${id}")
    for version in ("2026-11-19", "2026-11-20"):
        cluster.build(spec, version)
        cluster.load(spec, version)
    cluster.build(spec, V1)
    with pytest.raises(KilledError):
        cluster.load(spec, V1, dies_at(Step.RETIRE))
    assert len(cluster.desired().datasets["surplus"].versions) == 3
    cluster.load(spec, V1)
    assert [one.version for one in cluster.desired().datasets["surplus"].versions] == ["2026-11-20", V1]


def test_the_same_command_works_at_once_when_the_cause_is_mended(cluster: Cluster) -> None:
    spec = hash_spec("mended", "mended:${id}")
    cluster.build(spec, V1)
    cluster.load(spec, V1)
    victim = cluster.build(spec, V2)[1]
    good = cluster.flip_a_byte(victim)
    recorder = Recorder()
    with pytest.raises(ChecksumMismatchError, match=victim):
        cluster.load(spec, V2, recorder)
    assert recorder.notes[-1] == f"mended {V2} was withdrawn; what clients read is as before"
    assert [one.version for one in cluster.desired().datasets["mended"].versions] == [V1]
    assert cluster.served(spec) == {V1}
    cluster.put(victim, good)
    assert cluster.load(spec, V2).keys == ROWS
    assert cluster.served(spec) == {V2}


def test_a_failure_that_a_killed_coordinator_left_on_the_nodes_does_not_stand_in_the_way(cluster: Cluster) -> None:
    spec = hash_spec("left", "left:${id}")
    victim = cluster.build(spec, V1)[0]
    good = cluster.flip_a_byte(victim)

    def failed(event: LoadEvent) -> bool:
        return isinstance(event, NodesSeen) and any(
            isinstance(one, VersionStatus) and one.state is State.FAILED for one in event.nodes.values()
        )

    with pytest.raises(KilledError):
        cluster.load(spec, V1, dies(failed))
    cluster.put(victim, good)
    recorder = Recorder()
    cluster.load(spec, V1, recorder)
    assert any(note.endswith(": beginning anew") for note in recorder.notes), recorder.notes
    assert cluster.served(spec) == {V1}


def test_two_loads_of_one_version_at_once_both_end_well(cluster: Cluster) -> None:
    spec = hash_spec("twice", "twice:${id}")
    cluster.build(spec, V1)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: cluster.load(spec, V1), range(2)))
    assert [one.keys for one in reports] == [ROWS, ROWS]
    assert cluster.served(spec) == {V1}
    assert [str(one.goal) for one in cluster.desired().datasets["twice"].versions] == ["active"]


@pytest.mark.parametrize("step", [Step.INGEST, Step.VERIFY, Step.ACTIVATE])
def test_a_load_that_is_overtaken_by_a_newer_version_says_so_and_puts_nothing_over_it(cluster: Cluster, step: Step) -> None:
    spec = hash_spec(f"overtaken-{step}", f"overtaken-{step}:${{id}}")
    cluster.build(spec, V1)
    cluster.build(spec, V2)
    with pytest.raises(ConcurrentLoadError, match="written by"):
        cluster.load(spec, V1, Recorder(on_step={step: lambda: cluster.load(spec, V2)}))
    assert cluster.served(spec) == {V2}
    assert [one.version for one in cluster.desired().datasets[spec.dataset].versions] == [V2]


def test_a_node_that_is_away_is_named_and_the_load_goes_on_when_it_is_back(cluster: Cluster) -> None:
    spec = hash_spec("away", "away:${id}")
    cluster.build(spec, V1)
    away = cluster.nodes[1]
    away.kill()
    clock = OthersClock("a", State.STAGED)
    try:
        with pytest.raises(StalledError, match=r"step stage of away .* \(b, no progress for .* s: the sidecar of b at http") as stalled:
            cluster.load(spec, V1, clock, QUICK, clock.seconds)
        assert stalled.value.fields["nodes"] == ["b"]
        assert cluster.desired().datasets["away"].find(V1) is not None
    finally:
        away.start()
    assert cluster.load(spec, V1).changed
    away.kill()
    try:
        recorder = Recorder()
        assert not cluster.load(spec, V1, recorder).changed
        assert recorder.notes[-2].startswith("b can't be asked, and will follow without help")
    finally:
        away.start()
    away.until("away", V1, State.ACTIVE)
    assert cluster.served(spec) == {V1}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_what_goes_on_and_nodes_go_on(cluster: Cluster, sign: signal.Signals) -> None:
    name = f"signal-{int(sign)}"
    spec = hash_spec(name, f"{name}:${{id}}")
    cluster.build(spec, V1)
    away = cluster.nodes[1]
    away.kill()
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "--config",
        str(cluster.write_settings()),
        "load",
        str(cluster.spec_file(spec)),
        "--version",
        V1,
    ]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
            assert running.stderr is not None
            assert any(line.startswith("stage: a staged") for line in running.stderr)
            running.send_signal(sign)
            _, told = running.communicate(timeout=60)
    finally:
        away.start()
    assert running.returncode == 130
    assert "interrupted: nodes go on with what they were told, clients read the version before" in told
    assert "Traceback" not in told
    away.until(name, V1, State.STAGED)
    assert cluster.load(spec, V1).changed
    assert cluster.served(spec) == {V1}


def test_a_node_that_is_away_is_named_when_a_version_is_withdrawn(cluster: Cluster) -> None:
    spec = hash_spec("gone", "gone:${id}")
    for key in cluster.build(spec, V1):
        cluster.flip_a_byte(key)
    recorder = Recorder()
    cluster.nodes[1].kill()
    try:
        with pytest.raises(ChecksumMismatchError):
            cluster.load(spec, V1, recorder)
    finally:
        cluster.nodes[1].start()
    assert f"gone {V1} was withdrawn; what clients read is as before" in recorder.notes
    assert recorder.notes[-1] == "b can't be asked, and will drop it when back"
    assert spec.dataset not in cluster.desired().datasets
