"""A cluster of real shards and sidecars on a real S3, and a coordinator's commands onto it; versions are built without Spark."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from redis.cluster import ClusterNode, RedisCluster

from pipeline.format.audit import AuditRecord
from pipeline.format.desired import Desired, DesiredDataset
from pipeline.format.layout import topology_key
from pipeline.format.manifest import Manifest
from pipeline.format.slots import SlotRange, even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.load.coordinator import Coordinator
from pipeline.load.documents import ClusterDocuments
from pipeline.load.progress import Listener, LoadReport
from pipeline.load.swap import Swapper
from pipeline.load.waiting import Patience
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec
from pipeline.store import ObjectStore
from tests.support.builds import build
from tests.support.listener import Recorder
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, running_shards
from tests.support.sidecars import CLUSTER, NodeUnderTest

ROWS = 300
DELTA_ROWS = 20
HISTORY = 1000
PATIENT = Patience(stall_s_max=60, withdraw_s_max=60)  # for what takes a second on an idle machine
FIRST_EPOCH = 2  # shards start with a topology of epoch 1


@dataclass
class Cluster:
    """Some nodes of one shard each, the owners first, then replicas."""

    folder: Path
    store: ObjectStore
    nodes: list[NodeUnderTest]
    shards: list[ShardProcess]
    more_settings: str = ""

    def topology_of(self, owned: Sequence[Sequence[SlotRange]], epoch: int) -> Topology:
        """The slots of each node; those without any replicate the first ones, in order."""
        owners = sum(map(bool, owned))
        members = []
        for index, (node, shard, slots) in enumerate(zip(self.nodes, self.shards, owned, strict=True)):
            primary = None if slots else self.shards[index - owners].name
            mine = Shard(name=shard.name, host="127.0.0.1", port=shard.port, slots=tuple(slots), replica_of=primary)
            members.append(Node(name=node.name, sidecar_url=f"http://127.0.0.1:{node.port}", shards=(mine,)))
        return Topology(cluster=CLUSTER, epoch=epoch, nodes=tuple(members))

    @property
    def settings_file(self) -> Path:
        path = self.folder / "redkv.toml"
        lines = [f'store = "{self.store.root}"', f'cluster = "{CLUSTER}"', 'metastore_uris = "thrift://127.0.0.1:1"']
        path.write_text("\n".join([*lines, f'log_dir = "{self.folder}"', self.more_settings]), encoding="utf-8")
        return path

    @property
    def settings(self) -> ClusterSettings:
        return ClusterSettings.from_file(self.settings_file)

    @property
    def documents(self) -> ClusterDocuments:
        return ClusterDocuments(self.store, CLUSTER)

    def spec_file(self, spec: DatasetSpec) -> Path:
        path = self.folder / f"{spec.dataset}.yaml"
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        return path

    def build(self, spec: DatasetSpec, version: str, base: str | None = None) -> Manifest:
        """Rows of two fields, both of which tell the version; on a base, a delta: only the first rows do, the others tell the base."""
        ids = [str(number) for number in range(ROWS)]
        texts = [f"{version if number < DELTA_ROWS or not base else base} {number}" for number in range(ROWS)]
        return build(self.store, spec, version, {"id": ids, "name": texts, "again": texts}, base=base)

    def load(
        self, spec: DatasetSpec, version: str, recorder: Listener | None = None, patience: Patience | None = None, **how: Any
    ) -> LoadReport:
        """Build a version, if it is not there, and bring it to its readers."""
        if self.documents.manifest(spec.dataset, version) is None:
            self.build(spec, version)
        coordinator = Coordinator(self.settings, recorder or Recorder(), patience or PATIENT)
        return coordinator.load(self.spec_file(spec), version, self.folder / "build.log", **how)

    def swapper(self, recorder: Recorder | None = None) -> Swapper:
        return Swapper(self.settings, recorder or Recorder(), PATIENT)

    def redkv(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "--config", str(self.settings_file), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})})

    def desired(self) -> Desired:
        return self.documents.desired()

    def dataset(self, spec: DatasetSpec) -> DesiredDataset:
        return self.desired().datasets[spec.dataset]

    def goals(self, spec: DatasetSpec) -> dict[str, str]:
        return {one.version: str(one.goal) for one in self.dataset(spec).versions}

    def history(self, spec: DatasetSpec) -> list[AuditRecord]:
        return self.documents.trail.history(spec.dataset, self.desired(), HISTORY)

    def deeds(self, spec: DatasetSpec) -> list[tuple[str, str | None]]:
        """What was done to which version, builds aside: their time is that of their manifest."""
        return [(str(one.action), one.version) for one in self.history(spec) if one.action != "build"]

    def client(self) -> RedisCluster:
        seeds = [ClusterNode("127.0.0.1", self.shards[0].port)]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=seeds, decode_responses=True)

    def served(self, spec: DatasetSpec) -> set[str]:
        """The versions that clients read, over all keys; "" where there is none."""
        with self.client() as client:
            pipeline = client.pipeline()
            for number in range(ROWS):
                pipeline.hget(f"{spec.prefix}{number}", "name")
            return {"" if reply is None else reply.partition(" ")[0] for reply in pipeline.execute()}

    def take_down(self, index: int) -> None:
        """kill -9 of all processes of a node."""
        self.nodes[index].kill()
        self.shards[index].kill()

    def bring_up(self, index: int) -> None:
        """Start them again."""
        self.shards[index].start()
        self.nodes[index].start()

    def on_disk(self, spec: DatasetSpec) -> set[str]:
        """The versions that any shard has a directory of."""
        roots = [shard.paths.versions / spec.dataset for shard in self.shards]
        return {path.name for root in roots if root.is_dir() for path in root.iterdir()}


@contextmanager
def running_cluster(server: S3, folder: Path, count: int = 2, replicas: int = 0) -> Iterator[Cluster]:
    """Start the shards and sidecars of `count` nodes that own slots, and of some that replicate the first of them; stopped at the end. Keep
    `folder` short: a Unix socket's path is limited."""
    with running_shards(folder, count + replicas) as shards, ExitStack() as stack:
        nodes = []
        for index, shard in enumerate(shards):
            name = chr(ord("a") + index)
            (folder / name).mkdir()
            nodes.append(NodeUnderTest(folder / name, server.url, server.environment, [shard], name=name))
        cluster = Cluster(folder, server.store, nodes, shards)
        owned = [(one,) for one in even_ranges(count)] + [()] * replicas
        server.store.create(topology_key(CLUSTER), cluster.topology_of(owned, FIRST_EPOCH).to_json())
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        yield cluster
