"""Which nodes a load can do without: pure.

Rules:
- `all` needs every node. `any` needs, of every slot, one shard that has it: its owner, or a replica of it.
- A node that is let go of finishes by itself when it is back: the desired state says what it shall hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum

from pipeline.format.errors import SlotsWithoutOwnerError
from pipeline.format.topology import Topology
from pipeline.load.status import VersionStatus, swap_window_s


class Require(StrEnum):
    """What of a cluster must be there for a load."""

    ALL = "all"
    ANY = "any"


def shards_elsewhere(topology: Topology, nodes: Collection[str]) -> set[str]:
    """The shards of all other nodes."""
    return {shard.name for node in topology.nodes if node.name not in nodes for shard in node.shards}


def group(topology: Topology, primary: str, absent: AbstractSet[str] = frozenset()) -> list[str]:
    """The shards that hold a primary's slots, itself first, as far as they are not absent."""
    return [name for name in (primary, *(one.name for one in topology.replicas_of(primary))) if name not in absent]


def uncovered(topology: Topology, nodes: Collection[str]) -> list[str]:
    """The primaries of whose slots none of these nodes has a shard."""
    absent = shards_elsewhere(topology, nodes)
    return [one.name for one in topology.shards if one.slots and not group(topology, one.name, absent)]


def check_covered(topology: Topology, nodes: Collection[str]) -> None:
    """Whether every slot has a shard on one of these nodes.

    Raises:
        SlotsWithoutOwnerError: some have none.
    """
    shards = uncovered(topology, nodes)
    if shards:
        away = sorted({node.name for node in topology.nodes} - set(nodes))
        message = (
            f"the slots of {', '.join(shards)} have no shard on a node that answers ({', '.join(away)} can't be asked): mend one of these "
            f"nodes; the same command goes on from here"
        )
        raise SlotsWithoutOwnerError(message, shards=shards, nodes=away)


def window_of(topology: Topology, reached: Mapping[str, VersionStatus]) -> float | None:
    """The time between the first and the last shard's swap on the nodes that took part; None if one of their shards does not say."""
    return swap_window_s(reached.values(), len(topology.shards) - len(shards_elsewhere(topology, reached)))
