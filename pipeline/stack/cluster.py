"""The local cluster's shape: three nodes of two shards and a sidecar, slots spread evenly."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.stack.ports import LOOPBACK

CLUSTER = "local"
NODES = ("node-1", "node-2", "node-3")
SHARD_LETTERS = ("a", "b")


def shard_names(node: str) -> list[str]:
    """The shards of a node."""
    return [f"{node}-{letter}" for letter in SHARD_LETTERS]


def sidecar_name(node: str) -> str:
    """The member that is a node's sidecar."""
    return f"{node}-sidecar"


def port_names() -> list[str]:
    """Every shard and sidecar: each takes one port."""
    return [name for node in NODES for name in (*shard_names(node), sidecar_name(node))]


def topology(ports: Mapping[str, int]) -> Topology:
    """The first topology, with the ports of shards and sidecars by name."""
    ranges = iter(even_ranges(len(NODES) * len(SHARD_LETTERS)))
    nodes = tuple(
        Node(
            name=node,
            sidecar_url=f"http://{LOOPBACK}:{ports[sidecar_name(node)]}",
            shards=tuple(Shard(name=name, host=LOOPBACK, port=ports[name], slots=(next(ranges),)) for name in shard_names(node)),
        )
        for node in NODES
    )
    return Topology(cluster=CLUSTER, epoch=1, nodes=nodes)
