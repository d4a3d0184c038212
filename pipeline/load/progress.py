"""What a load tells while it runs: a stream of frozen events, given to a listener. Who shows them is somebody else's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.format.errors import RedkvError
from pipeline.load.states import State
from pipeline.load.status import VersionStatus


class Step(StrEnum):
    """The steps of a load, in order."""

    PLAN = "plan"
    BUILD = "build"
    STAGE = "stage"
    INGEST = "ingest"
    VERIFY = "verify"
    ACTIVATE = "activate"
    RETIRE = "retire"


NodeView = VersionStatus | RedkvError | None
"""One node during a load: its status of the version, why it can't be asked, or None if it has not heard of the version yet."""


@dataclass(frozen=True, slots=True)
class StepBegan:
    """A step begins."""

    step: Step
    message: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step ended, well or not, after so many seconds."""

    step: Step
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildSeen:
    """A look at the build job: seconds so far, and how far it is (empty if it does not say)."""

    seconds: float
    stage: str


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """A look at all nodes, by name."""

    step: Step
    nodes: Mapping[str, NodeView]


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence worth keeping."""

    message: str


LoadEvent = StepBegan | StepEnded | BuildSeen | NodesSeen | Noted
Listener = Callable[[LoadEvent], None]
"""Who is told. What it raises ends the load, as an interruption would."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load came to.

    `changed` is False if there was nothing to do. `seconds` by step, `swap_window_s` from the activation's write to the last node's report.
    """

    dataset: str
    version: str
    build_id: str
    changed: bool
    source_rows: int
    skipped: int
    keys: int
    bytes: int
    samples_checked: int = 0
    swap_window_s: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)


RANK = {
    State.ABSENT: 0,
    State.FAILED: 0,
    State.STAGING: 1,
    State.STAGED: 2,
    State.INGESTING: 3,
    State.READY: 4,
    State.RETIRED: 4,
    State.ACTIVE: 5,
}
"""How far a state is on the way to ACTIVE."""
