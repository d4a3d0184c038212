"""What a load tells while it runs: a stream of frozen events, given to a listener. Who shows them is somebody else's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.format.errors import RedkvError
from pipeline.format.queue import LoadQueue
from pipeline.format.records import Mode
from pipeline.load.states import State
from pipeline.load.status import VersionStatus


class Step(StrEnum):
    """The steps of a load, in order."""

    PLAN = "plan"
    BUILD = "build"
    QUEUE = "queue"
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
class QueueSeen:
    """A look at the queue by a load that waits: its place, 1 for the next, and the whole queue."""

    place: int
    queue: LoadQueue


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """A look at all nodes, by name."""

    step: Step
    nodes: Mapping[str, NodeView]


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence worth keeping."""

    message: str


LoadEvent = StepBegan | StepEnded | BuildSeen | QueueSeen | NodesSeen | Noted
Listener = Callable[[LoadEvent], None]
"""Who is told. What it raises ends the load, as an interruption would."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load came to.

    `changed` is False if there was nothing to do. `seconds` by step, `swap_window_s` between the first and the last shard's swap, of an
    `upsert` until all of it was in.
    `deletes` are the keys that an `upsert` removed, or the entries that a delta did. A delta lies on `base`, and puts `keys_put` keys over
    it; `keys` are all that it comes to, or where only nodes know that, those that it puts.
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
    mode: Mode = "replace"
    deletes: int = 0
    base: str | None = None
    keys_put: int = 0


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
