"""Waiting until every node has brought a version to a state: the barrier between the steps.

Rules:
- Only a status that follows the epoch just written, and speaks of the build just written, counts; any other may speak of the past.
- A fatal failure on a node ends the wait at once, with its error. A retryable one is the node's to repeat.
- Every wait has a deadline, and a shorter one for no progress (movement.py) on any node that is behind; both name node, step and seconds.
  One node that stands still while others move is told as a note.
- A newer epoch means that somebody else wrote: the caller's `check` then looks whether the version is still wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.format.errors import LoadFailedError, Outcome, RedkvError, SidecarUnavailableError, StalledError
from pipeline.load.build import BUILD_S_MAX
from pipeline.load.movement import Movement
from pipeline.load.nodes import LOOK_S_MAX, Answer, Nodes
from pipeline.load.progress import RANK, Listener, NodesSeen, NodeView, Noted, Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus

POLL_S = 0.1  # a status costs a node less than a millisecond; phases follow each other by wake-up, this is how soon we see it
QUIET_NOTE_S = 30.0  # a node that moves nothing for so long is named, while others move


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a load waits: for one step in all, and for any sign of progress, in seconds."""

    build_s_max: float = BUILD_S_MAX
    step_s_max: float = 4 * 3600.0  # terabytes at 1 GB/s per node, with room
    stall_s_max: float = 120.0  # no progress on any node that is behind
    withdraw_s_max: float = 10.0  # until nodes confirm that they gave up a failed version; they do it between two pieces of work


@dataclass(frozen=True, slots=True)
class Target:
    """What is waited for: this version in this state (or beyond), by nodes that follow this epoch; of this build, if one is given."""

    dataset: str
    version: str
    state: State
    epoch: int
    build_id: str | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks the nodes until a target is reached. `check` raises if the version is no longer wanted."""

    nodes: Nodes
    listener: Listener
    patience: Patience = Patience()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    check: Callable[[], None] = lambda: None

    def until(self, target: Target, step: Step) -> dict[str, VersionStatus]:
        """Every node's status once all have reached the target.

        Raises:
            RedkvError: a node's fatal failure, as the node names it; whatever `check` raises.
            StalledError: no progress, or no end in time.
        """
        began = self.clock()
        movement = Movement(target.dataset, target.version, began)
        newest, noted = target.epoch, set[str]()
        while True:
            answers = self.nodes.statuses(LOOK_S_MAX)
            self.listener(NodesSeen(step, {name: view(answer, target) for name, answer in answers.items()}))
            views = {name: current(answer, target) for name, answer in answers.items()}
            _raise_fatal(views, target)
            done = {name: one for name, one in views.items() if isinstance(one, VersionStatus) and RANK[one.state] >= RANK[target.state]}
            if len(done) == len(views):
                return done
            followed = max((one.desired_epoch for one in answers.values() if isinstance(one, NodeStatus)), default=0)
            if followed > newest:
                newest = followed
                self.check()
            now = self.clock()
            quiet = {name: movement.quiet_s(name, answers[name], now) for name in views if name not in done}
            if now - began > self.patience.step_s_max:
                raise _stalled(f"was not done after {now - began:.0f} s", step, target, views, quiet)
            if min(quiet.values()) > self.patience.stall_s_max:
                raise _stalled(f"made no progress for {min(quiet.values()):.0f} s", step, target, views, quiet)
            self._note_quiet(step, views, quiet, noted)
            self.sleep(POLL_S)

    def until_gone(self, dataset: str, version: str, epoch: int) -> list[str]:
        """Wait until no node that answers knows the version any more; the nodes that still do when patience ends."""
        began = self.clock()
        while True:
            answers = self.nodes.statuses(LOOK_S_MAX)
            told = {name: one for name, one in answers.items() if isinstance(one, NodeStatus)}
            left = [name for name, one in told.items() if one.desired_epoch < epoch or one.find(dataset, version) is not None]
            if not left or self.clock() - began > self.patience.withdraw_s_max:
                return left
            self.sleep(POLL_S)

    def _note_quiet(self, step: Step, views: Mapping[str, NodeView], quiet: Mapping[str, float], noted: set[str]) -> None:
        for name, seconds in quiet.items():
            if seconds < QUIET_NOTE_S:
                noted.discard(name)
            elif name not in noted:
                noted.add(name)
                self.listener(Noted(f"{step}: {name} has made no progress for {seconds:.0f} s ({_state_of(views[name])})"))


def view(answer: Answer, target: Target) -> NodeView:
    """One node's answer, as far as it speaks of the version (and build)."""
    if isinstance(answer, SidecarUnavailableError):
        return answer
    found = answer.find(target.dataset, target.version)
    return None if found and target.build_id not in {None, found.build_id} else found


def current(answer: Answer, target: Target) -> NodeView:
    """One node's answer, if it follows the target's epoch; its failure as a whole, or None, if it does not."""
    if isinstance(answer, SidecarUnavailableError) or answer.desired_epoch >= target.epoch:
        return view(answer, target)
    return RedkvError.from_json(answer.error) if answer.error else None


def failed_for_good(one: VersionStatus) -> bool:
    """Whether a version failed on its node, and is not tried again there by itself."""
    return one.state is State.FAILED and (one.error is None or RedkvError.from_json(one.error).outcome is Outcome.FATAL)


def _raise_fatal(views: Mapping[str, NodeView], target: Target) -> None:
    for node, one in views.items():
        if not isinstance(one, VersionStatus) or not failed_for_good(one):
            continue
        if one.error is None:
            raise LoadFailedError(f"{target.dataset} {target.version} failed on {node} without a reason: see its log", node=node)
        failure = RedkvError.from_json(one.error)
        message = f"{target.dataset} {target.version} failed on {node}: {failure.message}"
        raise type(failure)(message, **{**failure.fields, "node": node})


def _stalled(what: str, step: Step, target: Target, views: Mapping[str, NodeView], quiet: Mapping[str, float]) -> StalledError:
    told = "; ".join(f"{name}, no progress for {seconds:.0f} s: {_state_of(views[name])}" for name, seconds in quiet.items())
    message = f"step {step} of {target.dataset} {target.version} {what} ({told}): mend these nodes; the same command goes on from here"
    return StalledError(message, step=str(step), nodes=list(quiet), quiet_s={name: round(seconds, 1) for name, seconds in quiet.items()})


def _state_of(one: NodeView) -> str:
    match one:
        case VersionStatus(error={"message": message}):
            return f"{one.state}, {message}"
        case VersionStatus():
            step = f", {one.step}" if one.step else ""
            return f"{one.state}{step}, {one.files_done} of {one.files_total} files"
        case None:
            return "has not heard of it"
        case _:
            return str(one)
