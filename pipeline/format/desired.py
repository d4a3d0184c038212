"""The desired state of one cluster: the document that every sidecar works towards.

Rules:
- One small document per cluster, written by the coordinator, conditional on its ETag; `epoch` grows by one with every write.
- A version that is not in it must go from the nodes.
- At most one version per dataset has the goal ACTIVE.
- Prefixes of different datasets never overlap.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations

from pydantic import Field, model_validator

from pipeline.format.records import Record, VersionedRecord


class Goal(StrEnum):
    """How far a version shall come on every node."""

    STAGED = "staged"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"  # kept on disk, closed: the way back


class DesiredVersion(Record):
    """One version of a dataset: which build, where its manifest is (object key, and SHA-256 of its bytes), and the goal."""

    version: str
    build_id: str
    manifest_key: str
    manifest_sha256: str
    goal: Goal


class DesiredDataset(Record):
    """One dataset: its prefix and the versions that nodes hold or shall hold, oldest first."""

    prefix: str
    versions: tuple[DesiredVersion, ...] = ()

    @property
    def active(self) -> DesiredVersion | None:
        """The version that clients shall read."""
        return next((one for one in self.versions if one.goal is Goal.ACTIVE), None)

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
