"""What everything that changes versions is made of: a step, told and timed; a change, written and waited for on all nodes.

Rules:
- A step tells its begin and its end to the listener, and can be died at where it begins, and where its change is written (crashpoints.py).
- Whoever waits for a change looks, whenever a newer document is followed, whether it still stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pipeline.format.crashpoints import crash_point
from pipeline.format.errors import ConcurrentLoadError
from pipeline.load.coverage import Require
from pipeline.load.documents import Change, ClusterDocuments, last_writer
from pipeline.load.nodes import Nodes
from pipeline.load.progress import Listener, Noted, Step, StepBegan, StepEnded
from pipeline.load.states import State
from pipeline.load.status import VersionStatus
from pipeline.load.waiting import Patience, Target, Wait, Watch

WRITING_STEPS = frozenset(Step) - {Step.PLAN, Step.VERIFY}  # a build writes its manifest, others a document of the cluster


@dataclass(slots=True)
class Steps:
    """The steps of one command; `seconds` by step, `require` and `let_go` as a Watch has them."""

    documents: ClusterDocuments
    listener: Listener
    patience: Patience = field(default_factory=Patience)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    seconds: dict[str, float] = field(default_factory=dict)
    require: Require = Require.ALL
    let_go: set[str] = field(default_factory=set)

    @contextmanager
    def step(self, step: Step, message: str) -> Iterator[None]:
        """One step, from its begin to its end."""
        self.listener(StepBegan(step, message))
        crash_point(coordinator_point(step, "begun"))
        began = self.clock()
        try:
            yield
        finally:
            self.seconds[str(step)] = self.clock() - began
            self.listener(StepEnded(step, self.seconds[str(step)]))

    def reach(
        self, nodes: Nodes, step: Step, version: tuple[str, str, str], state: State, change: Change, why: str = ""
    ) -> dict[str, VersionStatus]:
        """Write a change, and wait until every node has brought a version (dataset, version, build id) to `state`.

        Raises:
            ConcurrentLoadError: somebody else changed it meanwhile.
            RedkvError: as `Wait.look`.
        """
        return self.awaited(nodes, step, version, state, change, self.write(nodes, step, change, why)).done()

    def write(self, nodes: Nodes, step: Step, change: Change, why: str = "") -> int:
        """Write a change, and wake the nodes; the epoch that they shall follow."""
        epoch = self.documents.change(change, why).epoch
        crash_point(coordinator_point(step, "written"))
        nodes.wake()
        return epoch

    def awaited(self, nodes: Nodes, step: Step, version: tuple[str, str, str], state: State, change: Change, epoch: int) -> Wait:
        """The wait for a change that was written at `epoch`, by whomever."""
        dataset, name, build_id = version

        def still_wanted() -> None:
            nodes.topology = self.documents.topology()
            desired = self.documents.desired()
            if change(desired) != desired:
                message = f"{dataset} {name} was taken back by another ({last_writer(desired)}): see `redkv versions {dataset} --history`"
                raise ConcurrentLoadError(message, dataset=dataset, version=name)

        return Wait(self.watch(nodes, still_wanted), Target(dataset, name, state, epoch, build_id), step)

    def watch(self, nodes: Nodes, check: Callable[[], None] = lambda: None) -> Watch:
        """A watch over the nodes."""
        return Watch(nodes, self.listener, self.patience, self.clock, self.sleep, check, self.require, self.let_go)

    def note(self, message: str) -> None:
        """Tell a sentence worth keeping."""
        self.listener(Noted(message))


def coordinator_point(step: Step, at: Literal["begun", "written"]) -> str:
    """The crash point at the begin of a step, or after what it writes was written."""
    return f"coordinator.{step}.{at}"


COORDINATOR_POINTS = tuple(
    coordinator_point(step, at) for step in Step for at in (("begun", "written") if step in WRITING_STEPS else ("begun",))
)
"""All crash points of a load's coordinator, in its order."""
