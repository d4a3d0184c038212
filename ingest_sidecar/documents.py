"""The two documents that a sidecar follows: read when they changed, refused when they are older than what was followed.

The epochs are remembered on disk, so that a restart does not forget what was followed.
"""

from __future__ import annotations

from ingest_sidecar.disk import write_atomically
from pipeline.format.desired import Desired
from pipeline.format.errors import FormatError, ObjectMissingError, StaleEpochError
from pipeline.format.layout import NodePaths, desired_key, topology_key
from pipeline.format.records import VersionedRecord
from pipeline.format.topology import Topology
from pipeline.store import ObjectStore


class Memory(VersionedRecord):
    """What a sidecar remembers over a restart: the epochs that it followed last."""

    desired_epoch: int = 0
    topology_epoch: int = 0


class Documents:
    """The documents as followed."""

    def __init__(self, store: ObjectStore, cluster: str, paths: NodePaths) -> None:
        self.desired: Desired | None = None
        self.topology: Topology | None = None
        self._store, self._cluster, self._paths = store, cluster, paths
        self._etags: dict[str, str] = {}
        self.memory = Memory()
        if paths.memory.exists():
            self.memory = Memory.from_json(paths.memory.read_bytes(), str(paths.memory))

    def refresh(self) -> None:
        """Read both if they changed.

        Raises:
            StaleEpochError: a document is older than what was followed; the followed one stays.
            StoreError, FormatError: it can't be read.
        """
        topology = self._changed(topology_key(self._cluster))
        if topology is not None:
            data, etag = topology
            read = Topology.from_json(data, topology_key(self._cluster))
            self._check(read, self.memory.topology_epoch, topology_key(self._cluster))
            self.topology = read
            self._follow(topology_key(self._cluster), etag)
        desired = self._changed(desired_key(self._cluster))
        if desired is not None:
            data, etag = desired
            wanted = Desired.from_json(data, desired_key(self._cluster))
            self._check(wanted, self.memory.desired_epoch, desired_key(self._cluster))
            self.desired = wanted
            self._follow(desired_key(self._cluster), etag)

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
        memory = Memory(
            desired_epoch=self.desired.epoch if self.desired else self.memory.desired_epoch,
            topology_epoch=self.topology.epoch if self.topology else self.memory.topology_epoch,
        )
        if memory != self.memory:
            write_atomically(self._paths.memory, memory.to_json())
            self.memory = memory
        self._etags[key] = etag
