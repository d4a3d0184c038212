"""Waiting until every node has brought a version to a state: the barrier between the steps.

Rules:
- Only a status that follows the epoch just written, and speaks of the build just written, counts; any other may speak of the past.
- A fatal failure on a node ends the wait at once, with its error. A retryable one is the node's to repeat.
- Every wait has a deadline, and a shorter one for no progress (movement.py) on any node that is behind; both name node, step and seconds.
  One node that stands still while others move is told as a note.
- Where a load needs any owner of a slot only (coverage.py), it goes on without nodes that are away: they, or their shards, don't answer for
  some seconds, or they make no progress for as long as it waits at all. A node that is let go of and comes back is waited for again.
- A newer epoch means that somebody else wrote: the caller's `check` then looks whether the version is still wanted, and where. Only nodes
  that go by the newest topology are counted, so that nobody's slots are missing, and nobody's are counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from pipeline.format.errors import LoadFailedError, Outcome, RedkvError, ShardUnavailableError, SidecarUnavailableError, StalledError
from pipeline.load.build import BUILD_S_MAX
from pipeline.load.coverage import Require, uncovered
from pipeline.load.movement import Movement
from pipeline.load.nodes import LOOK_S_MAX, Answer, Nodes
from pipeline.load.progress import RANK, Listener, NodesSeen, NodeView, Noted, Step
from pipeline.load.queue import SILENCE_S_MAX
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus

POLL_S = 0.1  # a status costs a node less than a millisecond; phases follow each other by wake-up, this is how soon we see it
QUIET_NOTE_S = 30.0  # a node that moves nothing for so long is named, while others move
AWAY_S_MAX = 5.0  # a process that is started again answers by then


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a load waits: for one step in all, and for any sign of progress, in seconds."""

    build_s_max: float = BUILD_S_MAX
    step_s_max: float = 4 * 3600.0  # terabytes at 1 GB/s per node, with room
    stall_s_max: float = 120.0  # no progress on any node that is behind
    away_s_max: float = AWAY_S_MAX  # that a node may not answer, where a load can go on without it
    silence_s_max: float = SILENCE_S_MAX  # of a load before this one in the queue, until it is taken for dead
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
    """Asks the nodes until a target is reached. `check` raises if the version is no longer wanted, and lets `nodes` follow the topology;
    `let_go` are the nodes that are not waited for while they are away.
    """

    nodes: Nodes
    listener: Listener
    patience: Patience = Patience()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    check: Callable[[], None] = lambda: None
    require: Require = Require.ALL
    let_go: set[str] = field(default_factory=set)

    def until(self, target: Target, step: Step) -> dict[str, VersionStatus]:
        """Every node's status once all have reached the target. Raises as `Wait.look`."""
        return Wait(self, target, step).done()

    def until_gone(self, dataset: str, version: str, epoch: int, resting: Container[State] = ()) -> list[str]:
        """Wait until no node that answers knows the version any more, but in one of these states; the nodes that still do when patience
        ends.
        """
        began = self.clock()
        while True:
            answers = self.nodes.statuses(LOOK_S_MAX)
            told = {name: one for name, one in answers.items() if isinstance(one, NodeStatus)}
            left = [name for name, one in told.items() if one.desired_epoch < epoch or _works(one.find(dataset, version), resting)]
            if not left or self.clock() - began > self.patience.withdraw_s_max:
                return left
            self.sleep(POLL_S)


class Wait:
    """One wait: `done` sits it out; whoever has a way of its own to let time pass calls `look` again and again."""

    def __init__(self, watch: Watch, target: Target, step: Step) -> None:
        self.target = target
        self._watch, self._step = watch, step
        self._began = watch.clock()
        self._movement = Movement(target.dataset, target.version, self._began)
        self._newest = target.epoch
        self._noted: set[str] = set()

    def done(self) -> dict[str, VersionStatus]:
        """Every node's status once all have reached the target. Raises as `look`."""
        while (reached := self.look()) is None:
            self._watch.sleep(POLL_S)
        return reached

    def look(self) -> dict[str, VersionStatus] | None:
        """Every node's status if all have reached the target, without those that are away if the others suffice; else None.

        Raises:
            RedkvError: a node's fatal failure, as the node names it; whatever the watch's `check` raises.
            StalledError: no progress, or no end in time.
        """
        watch, target = self._watch, self.target
        answers = watch.nodes.statuses(LOOK_S_MAX)
        watch.listener(NodesSeen(self._step, {name: view(answer, target) for name, answer in answers.items()}))
        topology = watch.nodes.topology.epoch
        views = {name: current(answer, target, topology) for name, answer in answers.items()}
        _raise_fatal(views, target)
        told = [one for one in answers.values() if isinstance(one, NodeStatus)]
        moved = any(one.topology_epoch > topology for one in told)
        statuses = {name: one for name, one in views.items() if isinstance(one, VersionStatus) and not moved}
        done = {name: one for name, one in statuses.items() if RANK[one.state] >= RANK[target.state]}
        if len(done) == len(views):
            return done
        followed = max((one.desired_epoch for one in told), default=0)
        if moved or followed > self._newest:
            self._newest = max(self._newest, followed)
            watch.check()
        now = watch.clock()
        quiet = {name: self._movement.quiet_s(name, answers[name], now) for name in views if name not in done}
        if watch.require is Require.ANY and self._suffice(done, quiet, answers, views):
            return done
        self._judge(views, quiet, now)
        return None

    def _suffice(
        self,
        done: Mapping[str, VersionStatus],
        quiet: Mapping[str, float],
        answers: Mapping[str, Answer],
        views: Mapping[str, NodeView],
    ) -> bool:
        """Whether all others are away, and those that are done have every slot."""
        patience, let_go = self._watch.patience, self._watch.let_go
        away = {name for name in quiet if _is_away(answers[name], views[name])}
        let_go.intersection_update(away)
        gone = {name for name in away if name in let_go or quiet[name] > patience.away_s_max}
        gone |= {name for name, seconds in quiet.items() if seconds > patience.stall_s_max}
        if len(gone) < len(quiet) or uncovered(self._watch.nodes.topology, done):
            return False
        for name in sorted(gone - let_go):
            told = f"goes on without {name} ({_state_of(views[name])}): every slot has another owner; it follows by itself when back"
            self._watch.listener(Noted(f"{self._step}: {told}"))
        let_go.update(gone)
        return True

    def _judge(self, views: Mapping[str, NodeView], quiet: Mapping[str, float], now: float) -> None:
        patience, seconds, least = self._watch.patience, now - self._began, min(quiet.values())
        if seconds > patience.step_s_max:
            raise _stalled(f"was not done after {seconds:.0f} s", self._step, self.target, views, quiet)
        if least > patience.stall_s_max:
            raise _stalled(f"made no progress for {least:.0f} s", self._step, self.target, views, quiet)
        for name, still in quiet.items():
            if still < QUIET_NOTE_S:
                self._noted.discard(name)
            elif name not in self._noted:
                self._noted.add(name)
                self._watch.listener(Noted(f"{self._step}: {name} has made no progress for {still:.0f} s ({_state_of(views[name])})"))


def view(answer: Answer, target: Target) -> NodeView:
    """One node's answer, as far as it speaks of the version (and build)."""
    if isinstance(answer, SidecarUnavailableError):
        return answer
    found = answer.find(target.dataset, target.version)
    return None if found and target.build_id not in {None, found.build_id} else found


def current(answer: Answer, target: Target, topology_epoch: int) -> NodeView:
    """One node's answer, if it follows the target's epoch and this topology; its failure as a whole, or None, if it does not."""
    if isinstance(answer, SidecarUnavailableError) or (answer.desired_epoch >= target.epoch and answer.topology_epoch >= topology_epoch):
        return view(answer, target)
    return RedkvError.from_json(answer.error) if answer.error else None


def _works(one: VersionStatus | None, resting: Container[State]) -> bool:
    return one is not None and one.state not in resting


def _is_away(answer: Answer, seen: NodeView) -> bool:
    """Whether a node, or a shard of it, does not answer."""
    if isinstance(answer, SidecarUnavailableError):
        return True
    errors = (answer.error, seen.error if isinstance(seen, VersionStatus) else None)
    return any(one is not None and isinstance(RedkvError.from_json(one), ShardUnavailableError) for one in errors)


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
