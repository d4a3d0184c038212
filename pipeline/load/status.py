"""What a sidecar reports over HTTP, and the coordinator reads: frozen, versioned records.

::

    GET  /v1/status   NodeStatus
    POST /v1/wake     202; read the desired state and the topology now, without waiting for the next poll
    GET  /v1/health   200 while the sidecar's loop runs
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pipeline.format.records import Record, VersionedRecord
from pipeline.load.states import State


class ShardVersion(Record):
    """What one shard of the node holds of a version: keys and entries of its own slots."""

    keys: int
    entries: int


class VersionStatus(Record):
    """One version on one node.

    Files and bytes count what this node needs: `*_done` of `*_total` are staged. `rate` is bytes/s over the last seconds, `eta_s` the
    seconds left at that rate (None if unknown), `idle_s` the seconds since anything moved. `error` is `RedkvError.to_json`.
    `shards` is filled from READY on; `samples_checked` counts sampled keys read back through the serving path.
    """

    version: str
    build_id: str
    state: State
    step: str = ""
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    idle_s: float = 0.0
    samples_checked: int = 0
    shards: dict[str, ShardVersion] = Field(default_factory=dict)
    error: dict[str, Any] | None = None


class NodeStatus(VersionedRecord):
    """One node: the epochs that it follows, and every dataset's versions. `error` is a failure of the node as a whole."""

    node: str
    desired_epoch: int
    topology_epoch: int
    datasets: dict[str, tuple[VersionStatus, ...]] = Field(default_factory=dict)
    error: dict[str, Any] | None = None

    def find(self, dataset: str, version: str) -> VersionStatus | None:
        """The entry of one version."""
        return next((one for one in self.datasets.get(dataset, ()) if one.version == version), None)
