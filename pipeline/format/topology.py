"""The topology: which shard owns which slots and which replicate it, one document per cluster, with an epoch that only grows.

Rules:
- No slot has two owners; a slot may have none.
- A replica owns no slots: it holds those of its primary, which is another shard of the cluster and no replica itself.
"""

from __future__ import annotations

import hashlib

from pydantic import model_validator

from pipeline.format.records import Record, VersionedRecord
from pipeline.format.slots import SLOT_COUNT, SlotRange


class Shard(Record):
    """One server process: its name (unique in the cluster), where clients reach it, and the slots that it owns.

    `replica_of` names the primary whose slots it replicates; None for a primary.
    """

    name: str
    host: str
    port: int
    slots: tuple[SlotRange, ...]
    replica_of: str | None = None

    @property
    def node_id(self) -> str:
        """Redis Cluster's id of this process: 40 hex digits, stable for the name."""
        return hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()


class Node(Record):
    """One machine: its name, its sidecar's HTTP address, and its shards."""

    name: str
    sidecar_url: str
    shards: tuple[Shard, ...]


class Topology(VersionedRecord):
    """The whole cluster."""

    cluster: str
    epoch: int
    nodes: tuple[Node, ...]

    @model_validator(mode="after")
    def _check(self) -> Topology:
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ValueError("two nodes have the same name")
        owner: dict[int, str] = {}
        names: set[str] = set()
        for shard in self.shards:
            if shard.name in names:
                raise ValueError(f"two shards are named {shard.name}")
            names.add(shard.name)
            for one in shard.slots:
                for slot in range(one.first, one.last + 1):
                    if slot in owner:
                        raise ValueError(f"slot {slot} is owned by both {owner[slot]} and {shard.name}")
                    owner[slot] = shard.name
        for shard in self.shards:
            self._check_replica(shard)
        return self

    def _check_replica(self, shard: Shard) -> None:
        if shard.replica_of is None:
            return
        primary = self.find(shard.replica_of)
        if primary is None:
            raise ValueError(f"{shard.name} is a replica of {shard.replica_of}, which is no shard of this cluster")
        if primary is shard:
            raise ValueError(f"{shard.name} is a replica of itself")
        if primary.replica_of is not None:
            raise ValueError(f"{shard.name} is a replica of {primary.name}, which is a replica of {primary.replica_of}: name the primary")
        if shard.slots:
            raise ValueError(f"{shard.name} is a replica of {primary.name}, so it can't own slots itself")

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards of all nodes."""
        return tuple(shard for node in self.nodes for shard in node.shards)

    def find(self, name: str) -> Shard | None:
        """The shard of a name."""
        return next((shard for shard in self.shards if shard.name == name), None)

    def replicas_of(self, name: str) -> tuple[Shard, ...]:
        """The replicas of a primary."""
        return tuple(shard for shard in self.shards if shard.replica_of == name)

    def held_by(self, name: str) -> tuple[SlotRange, ...]:
        """The slots whose keys a shard holds: its own, or its primary's; none if the topology does not know it."""
        shard = self.find(name)
        primary = self.find(shard.replica_of) if shard is not None and shard.replica_of is not None else shard
        return primary.slots if primary is not None else ()

    def owner_of(self, slot: int) -> Shard | None:
        """The shard that owns a slot; None if nobody does."""
        return next((shard for shard in self.shards if any(slot in one for one in shard.slots)), None)

    def borders(self) -> tuple[int, ...]:
        """The slots where another shard begins than that of the slot before."""
        return tuple(sorted({one.first for shard in self.shards for one in shard.slots if one.first}))

    def unowned(self) -> int:
        """How many slots nobody owns."""
        return SLOT_COUNT - sum(one.last - one.first + 1 for shard in self.shards for one in shard.slots)
