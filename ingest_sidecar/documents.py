"""The two documents that a sidecar follows: read when they changed, refused when they are older than what was followed.

The epochs are remembered on disk, so that a restart does not forget what was followed; so is what an operator holds back on this node. They
change in several threads: whoever changes them holds a lock from reading what was remembered until the new is on the disk.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from threading import Lock

from pydantic import Field

from ingest_sidecar.disk import write_atomically
from pipeline.format.desired import Desired, DesiredVersion
from pipeline.format.errors import FormatError, ObjectMissingError, StaleEpochError
from pipeline.format.layout import NodePaths, desired_key, topology_key
from pipeline.format.records import VersionedRecord
from pipeline.format.topology import Topology
from pipeline.store import ObjectStore


class Hold(StrEnum):
    """What an operator said of one build of a version on this node."""

    PAUSED = "paused"
    CANCELLED = "cancelled"


class Memory(VersionedRecord):
    """What a sidecar remembers over a restart: the epochs that it followed last, and holds by `<dataset>@<version>@<build-id>`."""

    desired_epoch: int = 0
    topology_epoch: int = 0
    holds: dict[str, Hold] = Field(default_factory=dict)


class Documents:
    """The documents as followed."""

    def __init__(self, store: ObjectStore, cluster: str, paths: NodePaths) -> None:
        self.desired: Desired | None = None
        self.topology: Topology | None = None
        self._store, self._cluster, self._paths = store, cluster, paths
        self._etags: dict[str, str] = {}
        self._lock = Lock()
        self.memory = Memory()
        if paths.memory.exists():
            self.memory = Memory.from_json(paths.memory.read_bytes(), str(paths.memory))

    def refresh(self) -> None:
        """Read both if they changed.

        The desired state is read first, so that the topology is at least as new as the one that it was written under: what it wants done is
        never done for slots from before.

        Raises:
            StaleEpochError: a document is older than what was followed; the followed one stays.
            StoreError, FormatError: it can't be read.
        """
        desired = self._changed(desired_key(self._cluster))
        topology = self._changed(topology_key(self._cluster))
        if topology is not None:
            data, etag = topology
            read = Topology.from_json(data, topology_key(self._cluster))
            self._check(read, self.memory.topology_epoch, topology_key(self._cluster))
            self.topology = read
            self._follow(topology_key(self._cluster), etag)
        if desired is not None:
            data, etag = desired
            wanted = Desired.from_json(data, desired_key(self._cluster))
            self._check(wanted, self.memory.desired_epoch, desired_key(self._cluster))
            self.desired = wanted
            self._follow(desired_key(self._cluster), etag)

    def held(self, dataset: str, wanted: DesiredVersion) -> Hold | None:
        """What an operator said of it."""
        return self.memory.holds.get(_hold_key(dataset, wanted))

    def hold(self, dataset: str, wanted: DesiredVersion, hold: Hold | None) -> None:
        """Remember what an operator says; None takes it back."""
        with self._lock:
            holds = {key: one for key, one in self.memory.holds.items() if key != _hold_key(dataset, wanted)}
            if hold is not None:
                holds[_hold_key(dataset, wanted)] = hold
            self._remember(self.memory.model_copy(update={"holds": holds}))

    def forget_holds(self) -> None:
        """Forget what was said of versions that are not wanted any more."""
        if self.desired is None or not self.memory.holds:
            return
        wanted = {_hold_key(name, one) for name, dataset in self.desired.datasets.items() for one in dataset.versions}
        with self._lock:
            self._remember(self.memory.model_copy(update={"holds": _only(self.memory.holds, wanted)}))

    def _remember(self, memory: Memory) -> None:
        if memory != self.memory:
            write_atomically(self._paths.memory, memory.to_json())
            self.memory = memory

    def _changed(self, key: str) -> tuple[bytes, str] | None:
        try:
            blob = self._store.get_if_changed(key, self._etags.get(key))
        except ObjectMissingError:
            return None  # a cluster that nothing was ever loaded onto
        return None if blob is None else (blob.data, blob.etag)

    def _check(self, document: Desired | Topology, followed: int, key: str) -> None:
        if document.cluster != self._cluster:
            raise FormatError(f"{key} is a document of cluster {document.cluster}, not of {self._cluster}", object=key)
        if document.epoch < followed:
            message = f"{key} has epoch {document.epoch}, this node follows {followed}: an older document was put back; write a newer one"
            raise StaleEpochError(message, object=key, epoch=document.epoch, followed=followed)

    def _follow(self, key: str, etag: str) -> None:
        """Remember the epochs on disk, and only then the ETag: what could not be remembered is read again."""
        with self._lock:
            memory = Memory(
                desired_epoch=self.desired.epoch if self.desired else self.memory.desired_epoch,
                topology_epoch=self.topology.epoch if self.topology else self.memory.topology_epoch,
                holds=self.memory.holds,
            )
            self._remember(memory)
        self._etags[key] = etag


def _hold_key(dataset: str, wanted: DesiredVersion) -> str:
    return f"{dataset}@{wanted.version}@{wanted.build_id}"


def _only(holds: dict[str, Hold], kept: Collection[str]) -> dict[str, Hold]:
    return {key: one for key, one in holds.items() if key in kept}
