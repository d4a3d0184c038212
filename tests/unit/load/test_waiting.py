"""The barrier, with nodes and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, DiskFullError, SidecarUnavailableError, StalledError
from pipeline.load.nodes import Answer
from pipeline.load.progress import NodeView, Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.waiting import Patience, Target, Watch

TARGET = Target("person", "2026-11-22", State.STAGED, epoch=7)


class Silent:
    def step(self, step: Step, message: str) -> None: ...
    def nodes(self, step: Step, nodes: Mapping[str, NodeView]) -> None: ...
    def note(self, message: str) -> None: ...


class Script:
    """Answers by turn; the last one stays."""

    def __init__(self, turns: Sequence[Mapping[str, Answer]]) -> None:
        self.turns = list(turns)

    def statuses(self) -> Mapping[str, Answer]:
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1.0)


def node(name: str, state: State, epoch: int = 7, **more: object) -> NodeStatus:
    version = VersionStatus.model_validate({"version": "2026-11-22", "build_id": "b", "state": state, **more})
    return NodeStatus(node=name, desired_epoch=epoch, topology_epoch=1, datasets={"person": (version,)})


def watch(*turns: Mapping[str, Answer]) -> Callable[[], dict[str, VersionStatus]]:
    clock = Clock()
    patience = Patience(step_s_max=1000, stall_s_max=60)
    one = Watch(Script(turns), Silent(), patience, clock, clock.sleep)  # type: ignore[arg-type]  # the script stands for the nodes
    return lambda: one.until(TARGET, Step.STAGE)


def test_it_ends_when_the_last_node_has_reached_the_state_or_gone_beyond() -> None:
    first = {"a": node("a", State.STAGING), "b": node("b", State.STAGED)}
    last = {"a": node("a", State.STAGED), "b": node("b", State.READY)}
    assert set(watch(first, last)()) == {"a", "b"}


def test_a_status_from_before_the_epoch_does_not_count() -> None:
    with pytest.raises(StalledError, match="a: has not heard of it"):
        watch({"a": node("a", State.STAGED, epoch=6)})()


def test_a_fatal_failure_ends_it_with_the_nodes_own_error_and_the_nodes_name() -> None:
    error = ChecksumMismatchError("object x/1.sst has another SHA-256", object="x/1.sst").to_json()
    with pytest.raises(ChecksumMismatchError, match=r"failed on b: object x/1\.sst") as failed:
        watch({"a": node("a", State.STAGED), "b": node("b", State.FAILED, error=error)})()
    assert failed.value.fields == {"object": "x/1.sst", "node": "b"}


def test_a_retryable_failure_is_waited_for_until_nothing_moves() -> None:
    error = DiskFullError("no space on node b").to_json()
    full = {"a": node("a", State.STAGED), "b": node("b", State.STAGING, error=error)}
    assert set(watch(full, {"a": node("a", State.STAGED), "b": node("b", State.STAGED)})()) == {"a", "b"}
    with pytest.raises(StalledError, match="b: staging, no space on node b"):
        watch(full)()


def test_a_node_that_does_not_answer_is_named() -> None:
    away = SidecarUnavailableError("the sidecar of b does not answer", node="b")
    with pytest.raises(StalledError, match="the sidecar of b does not answer") as stalled:
        watch({"a": node("a", State.STAGED), "b": away})()
    assert stalled.value.fields["nodes"] == ["b"]


def test_bytes_that_move_are_progress_but_the_deadline_stands() -> None:
    turns = [{"a": node("a", State.STAGING, bytes_done=count)} for count in range(5000)]
    with pytest.raises(StalledError, match="was not done after"):
        watch(*turns)()


def test_count_errors_are_fatal() -> None:
    error = CountMismatchError("3 keys, 4 promised").to_json()
    with pytest.raises(CountMismatchError):
        watch({"a": node("a", State.FAILED, error=error)})()
