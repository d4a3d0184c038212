"""What a sidecar reports over HTTP, and the coordinator reads: frozen, versioned records.

::

    GET  /v1/status   NodeStatus
    POST /v1/wake     202; read the desired state and the topology now, without waiting for the next poll
    POST /v1/versions/{dataset}/{version}/check   VersionCheck; look at it again, through the shards
    GET  /v1/limits   Limits; PUT changes them until the next start
    GET  /v1/health   200 while the sidecar's loop runs
    GET  /v1/ready    200 while it follows its documents and all its shards answer

All of it is in /v1/openapi.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from pipeline.format.records import Record, VersionedRecord
from pipeline.load.states import State


class ShardVersion(Record):
    """What one shard of the node holds of a version: keys and entries of its own slots, and keys that an `upsert` removes there.

    Of an `upsert` these count what was prepared last: all of it, or what slots that were gained later brought. Of a delta, `keys` and
    `entries` count what it comes to with its base, `deletes`, `applied_keys` and `applied_entries` what its own files had for the slots:
    None where the directory of a delta lost slots, since nothing in it says any more what of the rest came with the delta.
    """

    keys: int
    entries: int
    deletes: int | None = 0
    applied_keys: int | None = 0
    applied_entries: int | None = 0

    @property
    def knows_changes(self) -> bool:
        """Whether it can say what a delta's own files had for its slots."""
        return None not in {self.deletes, self.applied_keys, self.applied_entries}


class VersionStatus(Record):
    """One version on one node.

    Files and bytes count what this node needs: `*_done` of `*_total` are staged. `rate` is bytes/s over the last seconds, `eta_s` the
    seconds left at that rate (None if unknown), `idle_s` the seconds since anything moved. `error` is `RedkvError.to_json`.
    `shards` is filled from READY on; `samples_checked` counts sampled keys read back through the serving path, `samples_changed` those that
    answered otherwise, as clients write the live keys that an `upsert` brings. `paused`: an operator stopped the work on it.
    `activated_ms` is when each shard swapped to it, by the node's clock, as far as its sidecar ran then.
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
    samples_changed: int = 0
    shards: dict[str, ShardVersion] = Field(default_factory=dict)
    error: dict[str, Any] | None = None
    paused: bool = False
    activated_ms: dict[str, int] = Field(default_factory=dict)


class ShardCheck(Record):
    """What one shard holds of a version: its directory's own words (None and 0 without one), whether clients read it there, and how many
    samples answered as they were built; `error` if something did not.
    """

    shard: str
    build_id: str | None
    manifest_sha256: str | None
    keys: int
    entries: int
    active: bool
    samples_checked: int
    error: dict[str, Any] | None = None


class VersionCheck(VersionedRecord):
    """A look at one version on one node."""

    node: str
    dataset: str
    version: str
    shards: tuple[ShardCheck, ...]


class Limits(VersionedRecord):
    """What an operator may change while a sidecar runs: `bandwidth_bytes_s` over all downloads; None is no limit."""

    bandwidth_bytes_s: int | None = Field(default=None, ge=1)


class Throttle(Record):
    """What holds the work on a node back, and why: `pace` is 1 for unhindered, `rate` the bytes/s that count, `p99_us` the readers' p99."""

    pace: float = 1.0
    rate: float | None = None
    p99_us: float | None = None
    reason: str = ""


class NodeStatus(VersionedRecord):
    """One node: the epochs that it follows, every dataset's versions, what holds it back; `error` is a failure of the node as a whole."""

    node: str
    desired_epoch: int
    topology_epoch: int
    datasets: dict[str, tuple[VersionStatus, ...]] = Field(default_factory=dict)
    error: dict[str, Any] | None = None
    throttle: Throttle = Throttle()

    def find(self, dataset: str, version: str) -> VersionStatus | None:
        """The entry of one version."""
        return next((one for one in self.datasets.get(dataset, ()) if one.version == version), None)


def swap_window_s(nodes: Iterable[VersionStatus], shards: int) -> float | None:
    """The time between the first and the last shard's swap; None if one of so many shards does not say when it was."""
    moments = [moment for one in nodes for moment in one.activated_ms.values()]
    return (max(moments) - min(moments)) / 1000 if moments and len(moments) == shards else None
