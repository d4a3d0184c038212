"""The topology as a shard follows it: which slots it serves, and where it sends clients for the others.

Rules:
- The file is read at start and on `REDKV TOPOLOGY`. Without one, nobody owns a slot: every keyed command answers CLUSTERDOWN.
- A lower epoch than the followed one is refused; a broken file is refused; in both cases what was followed stays.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from pipeline.format.errors import NodeError, StaleEpochError
from pipeline.format.slots import SLOT_COUNT
from pipeline.format.topology import Shard, Topology
from server.resp import replies, texts


class ClusterView:
    """One shard's view of its cluster; `owned[slot]` is 1 for its own slots."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.topology: Topology | None = None
        self.owned = bytearray(SLOT_COUNT)
        self.owned_slots: frozenset[int] = frozenset()
        self.owners: list[Shard | None] = [None] * SLOT_COUNT
        self._path = path

    @property
    def epoch(self) -> int:
        """The epoch that is followed; 0 before there is one."""
        return self.topology.epoch if self.topology else 0

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards."""
        return self.topology.shards if self.topology else ()

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

    def redirection(self, slot: int) -> bytes:
        """What a client hears that asked for a slot which this shard does not own."""
        owner = self.owners[slot]
        if owner is None:
            return replies.error(texts.SLOT_UNSERVED)
        return replies.error(texts.moved(slot, owner.host, owner.port))

    def runs(self) -> list[tuple[int, int, Shard]]:
        """Owned slots in order, as (first, last, owner) of the longest runs."""
        found = []
        for owner, group in groupby(range(SLOT_COUNT), key=self.owners.__getitem__):
            slots = list(group)
            if owner is not None:
                found.append((slots[0], slots[-1], owner))
        return found

    def _follow(self, topology: Topology) -> None:
        owners: list[Shard | None] = [None] * SLOT_COUNT
        for shard in topology.shards:
            for one in shard.slots:
                owners[one.first : one.last + 1] = [shard] * (one.last - one.first + 1)
        self.owners = owners
        self.owned[:] = bytes(owner is not None and owner.name == self.name for owner in owners)
        self.owned_slots = frozenset(slot for slot, mine in enumerate(self.owned) if mine)
        self.topology = topology
