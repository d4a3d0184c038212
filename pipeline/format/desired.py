"""The desired state of one cluster: the document that every sidecar works towards.

Rules:
- One small document per cluster, written by the coordinator, conditional on its ETag; `epoch` grows by one with every write.
- A version that is not in it must go from the nodes.
- At most one version per dataset has the goal ACTIVE.
- Prefixes of different datasets never overlap.
- A version that is marked bad never gets the goal ACTIVE.
- `audit` tells what this write did, until the next writer has stored it as objects (audit.py).
"""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations

from pydantic import Field, model_validator

from pipeline.format.audit import AuditRecord
from pipeline.format.records import Mode, Record, VersionedRecord


class Goal(StrEnum):
    """How far a version shall come on every node."""

    STAGED = "staged"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"  # kept on disk, closed: the way back


class DesiredVersion(Record):
    """One version of a dataset: which build, where its manifest is (object key, and SHA-256 of its bytes), and the goal.

    `retired_at_ms` is when it stopped being what clients shall read; it stays while the version is brought back to where nodes lack it.
    """

    version: str
    build_id: str
    manifest_key: str
    manifest_sha256: str
    goal: Goal
    retired_at_ms: int | None = None

    @property
    def is_way_back(self) -> bool:
        """Whether clients read it before, and not now."""
        return self.goal is Goal.RETIRED or (self.goal is not Goal.ACTIVE and self.retired_at_ms is not None)


class BadVersion(Record):
    """A version that clients shall never read again, who said so, and when. The mark stays when the version is gone."""

    version: str
    build_id: str
    by: str
    at_ms: int


class DesiredDataset(Record):
    """One dataset: its prefix, its mode, the versions that nodes hold or shall hold, oldest first, and those that were marked bad."""

    prefix: str
    mode: Mode = "replace"
    versions: tuple[DesiredVersion, ...] = ()
    bad: tuple[BadVersion, ...] = ()

    @property
    def active(self) -> DesiredVersion | None:
        """The version that clients shall read."""
        return next((one for one in self.versions if one.goal is Goal.ACTIVE), None)

    def mark_of(self, version: str) -> BadVersion | None:
        """The mark of a version that is bad."""
        return next((one for one in self.bad if one.version == version), None)

    def find(self, version: str) -> DesiredVersion | None:
        """The entry of a version id."""
        return next((one for one in self.versions if one.version == version), None)


class Desired(VersionedRecord):
    """The whole document. `written_by` says who wrote it (user@host:pid), `written_at_ms` when."""

    cluster: str
    epoch: int
    datasets: dict[str, DesiredDataset] = Field(default_factory=dict)
    written_by: str = ""
    written_at_ms: int = 0
    audit: tuple[AuditRecord, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Desired:
        for name, dataset in self.datasets.items():
            if sum(one.goal is Goal.ACTIVE for one in dataset.versions) > 1:
                raise ValueError(f"dataset {name} has two active versions")
            if len({one.version for one in dataset.versions}) != len(dataset.versions):
                raise ValueError(f"dataset {name} lists a version twice")
        for (one, left), (two, right) in combinations(self.datasets.items(), 2):
            if overlapping(left.prefix, right.prefix):
                raise ValueError(f"prefix {left.prefix!r} of {one} overlaps {right.prefix!r} of {two}")
        return self


def overlapping(left: str, right: str) -> bool:
    """Whether a key could start with both prefixes."""
    return left.startswith(right) or right.startswith(left)
