"""The topology as a shard follows it: which slots it serves, and where it sends clients for the others.

Rules:
- A replica owns nothing and holds the slots of its primary, which it serves to connections that said READONLY.
- A shard outside of cluster mode owns all slots; of the topology it follows the epoch only.
- The file is read at start and on `REDKV TOPOLOGY`. Without one, nobody owns a slot: every keyed command answers CLUSTERDOWN.
- A lower epoch than the followed one is refused; a broken file is refused; in both cases what was followed stays.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from pipeline.format.errors import NodeError, StaleEpochError
from pipeline.format.slots import SLOT_COUNT, slot_set
from pipeline.format.topology import Shard, Topology
from server.resp import texts


class ClusterView:
    """One shard's view of its cluster. `owned[slot]` is 1 for its own slots, `copied[slot]` for its primary's; `held_slots` are both.

    `myself` is this shard as the topology has it, else as it was given; `primary` whom it replicates; `replicas` who replicates it;
    `is_replicated` is true with either, and means that no client writes here: nothing would carry a write to the others.
    """

    def __init__(self, myself: Shard, path: Path, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.myself = myself
        self.primary: Shard | None = None
        self.replicas: tuple[Shard, ...] = ()
        self.is_replicated = False
        self.topology: Topology | None = None
        self.owned = bytearray(SLOT_COUNT) if enabled else bytearray(b"\1" * SLOT_COUNT)
        self.copied = bytearray(SLOT_COUNT)
        self.held_slots: frozenset[int] = frozenset() if enabled else frozenset(range(SLOT_COUNT))
        self.owners: list[Shard | None] = [None] * SLOT_COUNT
        self._path = path

    @property
    def epoch(self) -> int:
        """The epoch that is followed; 0 before there is one."""
        return self.topology.epoch if self.topology else 0

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, this one too, though the topology may not know it."""
        known = self.topology.shards if self.topology else ()
        return known if self.myself in known else (self.myself, *known)

    def reload(self) -> int:
        """Follow the file; the epoch that is followed now.

        Raises:
            NodeError: there is no file.
            FormatError: it is broken.
            StaleEpochError: it is older than what is followed.
        """
        try:
            raw = self._path.read_bytes()
        except OSError as missing:
            raise NodeError(f"topology {self._path} can't be read: {missing.strerror}", path=str(self._path)) from missing
        topology = Topology.from_json(raw, str(self._path))
        if topology.epoch < self.epoch:
            raise StaleEpochError(
                f"topology {self._path} has epoch {topology.epoch}; this shard follows {self.epoch}",
                epoch=topology.epoch,
                followed=self.epoch,
            )
        self._follow(topology)
        return topology.epoch

    def redirection(self, slot: int) -> str:
        """The error that a client hears that asked for a slot which this shard does not own."""
        owner = self.owners[slot]
        return texts.SLOT_UNSERVED if owner is None else texts.moved(slot, owner.host, owner.port)

    def primary_of(self, shard: Shard) -> Shard | None:
        """Whom a shard replicates."""
        return self.topology.find(shard.replica_of) if self.topology and shard.replica_of is not None else None

    def replicas_of(self, shard: Shard) -> tuple[Shard, ...]:
        """Who replicates a shard."""
        return self.topology.replicas_of(shard.name) if self.topology else ()

    def runs(self) -> list[tuple[int, int, Shard]]:
        """Owned slots in order, as (first, last, owner) of the longest runs."""
        found = []
        for owner, group in groupby(range(SLOT_COUNT), key=self.owners.__getitem__):
            slots = list(group)
            if owner is not None:
                found.append((slots[0], slots[-1], owner))
        return found

    def _follow(self, topology: Topology) -> None:
        self.topology = topology
        if not self.enabled:
            return
        owners: list[Shard | None] = [None] * SLOT_COUNT
        for shard in topology.shards:
            for one in shard.slots:
                owners[one.first : one.last + 1] = [shard] * (one.last - one.first + 1)
        self.owners = owners
        name = self.myself.name
        self.myself = topology.find(name) or self.myself.model_copy(update={"slots": (), "replica_of": None})
        self.primary = self.primary_of(self.myself)
        self.replicas = topology.replicas_of(name)
        self.is_replicated = self.primary is not None or bool(self.replicas)
        self.held_slots = slot_set(topology.held_by(name))
        owned = slot_set(self.myself.slots)
        self.owned[:] = bytes(slot in owned for slot in range(SLOT_COUNT))
        self.copied[:] = bytes(slot in self.held_slots and slot not in owned for slot in range(SLOT_COUNT))
