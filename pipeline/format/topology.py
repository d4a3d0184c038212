"""The topology: which shard owns which slots, one document per cluster, with an epoch that only grows."""

from __future__ import annotations

import hashlib

from pydantic import model_validator

from pipeline.format.records import Record, VersionedRecord
from pipeline.format.slots import SLOT_COUNT, SlotRange


class Shard(Record):
    """One server process: its name (unique in the cluster), where clients reach it, and the slots that it owns."""

    name: str
    host: str
    port: int
    slots: tuple[SlotRange, ...]

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
    """The whole cluster. No slot has two owners; a slot may have none."""

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
        return self

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards of all nodes."""
        return tuple(shard for node in self.nodes for shard in node.shards)

    def owner_of(self, slot: int) -> Shard | None:
        """The shard that owns a slot; None if nobody does."""
        return next((shard for shard in self.shards if any(slot in one for one in shard.slots)), None)

    def unowned(self) -> int:
        """How many slots nobody owns."""
        return SLOT_COUNT - sum(one.last - one.first + 1 for shard in self.shards for one in shard.slots)
