"""Waiting until every node has brought a version to a state: the barrier between the steps.

Rules:
- Only a status that follows the epoch just written counts; an older one may speak of the past.
- A fatal failure on a node ends the wait at once, with its error. A retryable one is the node's to repeat.
- Every wait has a deadline, and a shorter one for no progress at all; both name node, step and seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.format.errors import LoadFailedError, Outcome, RedkvError, SidecarUnavailableError, StalledError
from pipeline.load.nodes import Answer, Nodes
from pipeline.load.progress import RANK, Listener, NodeView, Step
from pipeline.load.states import State
from pipeline.load.status import VersionStatus

POLL_S = 0.1  # a status costs a node less than a millisecond; phases follow each other by wake-up, this is how soon we see it


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a load waits: for one step in all, and for any sign of progress, in seconds."""

    step_s_max: float = 4 * 3600.0  # terabytes at 1 GB/s per node, with room
    stall_s_max: float = 120.0  # no byte, file or state moved on any node


@dataclass(frozen=True, slots=True)
class Target:
    """What is waited for: this version in this state (or beyond), by nodes that follow this epoch."""

    dataset: str
    version: str
    state: State
    epoch: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks the nodes until a target is reached."""

    nodes: Nodes
    listener: Listener
    patience: Patience = Patience()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, target: Target, step: Step) -> dict[str, VersionStatus]:
        """Every node's status once all have reached the target.

        Raises:
            RedkvError: a node's fatal failure, as the node names it.
            StalledError: no progress, or no end in time.
        """
        began = moved = self.clock()
        last: object = None
        while True:
            answers = self.nodes.statuses()
            self.listener.nodes(step, {name: view(answer, target) for name, answer in answers.items()})
            views = {name: current(answer, target) for name, answer in answers.items()}
            _raise_fatal(views, target)
            done = {name: one for name, one in views.items() if isinstance(one, VersionStatus) and RANK[one.state] >= RANK[target.state]}
            if len(done) == len(views):
                return done
            now = self.clock()
            if views and (mark := _fingerprint(views)) != last:
                last, moved = mark, now
            behind = [name for name in views if name not in done]
            if now - began > self.patience.step_s_max:
                raise _stalled(f"was not done after {now - began:.0f} s", step, target, views, behind)
            if now - moved > self.patience.stall_s_max:
                raise _stalled(f"made no progress for {now - moved:.0f} s", step, target, views, behind)
            self.sleep(POLL_S)


def view(answer: Answer, target: Target) -> NodeView:
    """One node's answer, as far as it speaks of the version."""
    return answer if isinstance(answer, SidecarUnavailableError) else answer.find(target.dataset, target.version)


def current(answer: Answer, target: Target) -> NodeView:
    """One node's answer, if it follows the target's epoch; its failure as a whole, or None, if it does not."""
    if isinstance(answer, SidecarUnavailableError) or answer.desired_epoch >= target.epoch:
        return view(answer, target)
    return RedkvError.from_json(answer.error) if answer.error else None


def _raise_fatal(views: Mapping[str, NodeView], target: Target) -> None:
    for node, one in views.items():
        if isinstance(one, VersionStatus) and one.state is State.FAILED and one.error is not None:
            failure = RedkvError.from_json(one.error)
            if failure.outcome is Outcome.FATAL:
                message = f"{target.dataset} {target.version} failed on {node}: {failure.message}"
                raise type(failure)(message, **{**failure.fields, "node": node})
        elif isinstance(one, VersionStatus) and one.state is State.FAILED:
            raise LoadFailedError(f"{target.dataset} {target.version} failed on {node} without a reason: see its log", node=node)


def _fingerprint(views: Mapping[str, NodeView]) -> object:
    return [
        (name, one.state, one.step, one.files_done, one.bytes_done) if isinstance(one, VersionStatus) else (name, type(one).__name__)
        for name, one in views.items()
    ]


def _stalled(what: str, step: Step, target: Target, views: Mapping[str, NodeView], behind: list[str]) -> StalledError:
    told = "; ".join(f"{name}: {_state_of(views[name])}" for name in behind)
    message = f"step {step} of {target.dataset} {target.version} {what} ({told}): mend these nodes; the same command goes on from here"
    return StalledError(message, step=str(step), nodes=behind)


def _state_of(one: NodeView) -> str:
    match one:
        case VersionStatus(error={"message": message}):
            return f"{one.state}, {message}"
        case VersionStatus():
            return f"{one.state}, {one.files_done}/{one.files_total} files, idle {one.idle_s:.0f} s"
        case None:
            return "has not heard of it"
        case _:
            return str(one)
