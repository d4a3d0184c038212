"""Three nodes of one shard each, with their sidecars and an S3, for benchmarks of loading.

All of it shares one machine here. What is on other machines in life (the object store; who measures) can be put aside: it runs only where
nothing that belongs on a node wants the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.format.admin import ShardStatus
from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.store import ObjectStore
from tests.support.ports import free_port
from tests.support.resp import RawClient
from tests.support.s3 import S3, s3_store
from tests.support.shards import ShardProcess
from tests.support.sidecars import CLUSTER, Head, NodeUnderTest

NODES = 3


@dataclass
class Cluster:
    """The parts, all running."""

    s3: S3
    head: Head
    topology: Topology
    nodes: list[NodeUnderTest]

    @property
    def store(self) -> ObjectStore:
        """Where versions are."""
        return self.s3.store

    @property
    def shards(self) -> list[ShardProcess]:
        """The shards, in slot order."""
        return [shard for node in self.nodes for shard in node.shards]

    def restart(self, options: Mapping[str, object]) -> None:
        """All sidecars with other settings."""
        for node in self.nodes:
            node.stop()
            node.options = options
            node.start()

    def shard_states(self) -> list[ShardStatus]:
        """What each shard says of itself."""
        states = []
        for one in self.shards:
            with RawClient(one.admin_socket) as client:
                states.append(ShardStatus.from_json(client.call("REDKV", "STATUS").partition(b"\r\n")[2], one.name))
        return states

    def wake(self) -> None:
        """Let all sidecars read the documents."""
        for node in self.nodes:
            node.wake()


def aside(pid: int) -> None:
    """Let all threads of a process, and those that they start, run where nobody else wants the CPU."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def cluster(root: Path, count: int = NODES) -> Iterator[Cluster]:
    """All of it, stopped at the end."""
    shards = [ShardProcess(f"node-{index}-a", root / f"s{index}", free_port()) for index in range(1, count + 1)]
    with s3_store() as s3:
        nodes = []
        for index, shard in enumerate(shards, 1):
            (root / f"n{index}").mkdir()
            nodes.append(NodeUnderTest(root / f"n{index}", s3.url, s3.environment, [shard], name=f"node-{index}"))
        topology = _topology(nodes)
        head = Head(s3.store)
        head.topology(topology)
        try:
            for shard in shards:
                shard.follow(topology)
                shard.start()
            for node in nodes:
                node.start()
            yield Cluster(s3, head, topology, nodes)
        finally:
            for node in nodes:
                node.kill()
            for shard in shards:
                shard.kill()


def _topology(nodes: Sequence[NodeUnderTest]) -> Topology:
    members = []
    for node, slots in zip(nodes, even_ranges(len(nodes)), strict=True):
        [shard] = node.shards
        own = Shard(name=shard.name, host="127.0.0.1", port=shard.port, slots=(slots,))
        members.append(Node(name=node.name, sidecar_url=f"http://127.0.0.1:{node.port}", shards=(own,)))
    return Topology(cluster=CLUSTER, epoch=1, nodes=tuple(members))
