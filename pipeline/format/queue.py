"""The queue of a cluster: which loads bring a version to its nodes now, and which wait for their turn.

Rules:
- One small document per cluster, written by the loads themselves, conditional on its ETag.
- It keeps loads out of each other's way, and nothing safe: what a load may change is ruled by the desired state alone. So an entry may get
  lost, or be one too many, and all that happens is that a load begins too early.
- A load lets its `beat` grow while it lives. Whoever waits takes away an entry whose beat stands still; no clocks are compared.
"""

from __future__ import annotations

from pydantic import model_validator

from pipeline.format.records import Record, VersionedRecord


class QueuedLoad(Record):
    """A load of one version: how urgent (more is sooner), by whom (user@host:pid), since when it asks, and since when it runs: None while
    it waits.
    """

    dataset: str
    version: str
    priority: int
    by: str
    asked_at_ms: int
    started_at_ms: int | None = None
    beat: int = 0


class LoadQueue(VersionedRecord):
    """The whole document: the loads in the order in which they asked."""

    cluster: str
    loads: tuple[QueuedLoad, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> LoadQueue:
        if len({(one.dataset, one.version) for one in self.loads}) != len(self.loads):
            raise ValueError("a version is in the queue twice")
        return self

    @property
    def running(self) -> tuple[QueuedLoad, ...]:
        """Those whose turn it is."""
        return tuple(one for one in self.loads if one.started_at_ms is not None)

    @property
    def waiting(self) -> tuple[QueuedLoad, ...]:
        """Those that wait, the next one first: by priority, then by who came first."""
        waiting = [one for one in self.loads if one.started_at_ms is None]
        return tuple(sorted(waiting, key=lambda one: -one.priority))

    def find(self, dataset: str, version: str) -> QueuedLoad | None:
        """The entry of a version."""
        return next((one for one in self.loads if (one.dataset, one.version) == (dataset, version)), None)
