"""The barrier, with nodes and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pipeline.format.errors import (
    ChecksumMismatchError,
    ConcurrentLoadError,
    CountMismatchError,
    DiskFullError,
    SidecarUnavailableError,
    StalledError,
)
from pipeline.load.nodes import Answer
from pipeline.load.progress import LoadEvent, Noted, Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.waiting import Patience, Target, Watch

TARGET = Target("person", "2026-11-22", State.STAGED, epoch=7)


class Notes(list[str]):
    def __call__(self, event: LoadEvent) -> None:
        if isinstance(event, Noted):
            self.append(event.message)


class Script:
    """Answers by turn; the last one stays, or all come `again` and again."""

    def __init__(self, turns: Sequence[Mapping[str, Answer]], *, again: bool = False) -> None:
        self.turns = list(turns)
        self.again = again

    def statuses(self, wait_s: float) -> Mapping[str, Answer]:
        if self.again:
            self.turns.append(self.turns[0])
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


def watch(
    *turns: Mapping[str, Answer], again: bool = False, notes: Notes | None = None, check: Callable[[], None] = lambda: None
) -> Callable[[], dict[str, VersionStatus]]:
    clock = Clock()
    patience = Patience(step_s_max=1000, stall_s_max=60)
    script = Script(turns, again=again)
    one = Watch(script, Notes() if notes is None else notes, patience, clock, clock.sleep, check)  # type: ignore[arg-type]  # the script stands for the nodes
    return lambda: one.until(TARGET, Step.STAGE)


def test_it_ends_when_the_last_node_has_reached_the_state_or_gone_beyond() -> None:
    first = {"a": node("a", State.STAGING), "b": node("b", State.STAGED)}
    last = {"a": node("a", State.STAGED), "b": node("b", State.READY)}
    assert set(watch(first, last)()) == {"a", "b"}


def test_a_status_from_before_the_epoch_does_not_count() -> None:
    with pytest.raises(StalledError, match="a, no progress for 61 s: has not heard of it"):
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
    with pytest.raises(StalledError, match="b, no progress for 61 s: staging, no space on node b"):
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


def test_another_build_of_the_version_does_not_count() -> None:
    stale = ChecksumMismatchError("of the build before").to_json()
    old = NodeStatus(
        node="a",
        desired_epoch=7,
        topology_epoch=1,
        datasets={"person": (VersionStatus(version="2026-11-22", build_id="old", state=State.FAILED, error=stale),)},
    )
    clock = Clock()
    one = Watch(Script([{"a": old}, {"a": node("a", State.STAGED)}]), Notes(), Patience(), clock, clock.sleep)  # type: ignore[arg-type]
    assert set(one.until(Target("person", "2026-11-22", State.STAGED, epoch=7, build_id="b"), Step.STAGE)) == {"a"}


def test_a_failure_that_repeats_itself_is_no_progress() -> None:
    full = DiskFullError("no space on node a").to_json()
    turns = [node("a", State.FAILED, error=full), node("a", State.STAGING, step="checking free space", error=full)]
    with pytest.raises(StalledError, match="made no progress for 61 s"):
        watch(*({"a": turn} for turn in turns), again=True)()


def test_a_node_that_comes_and_goes_is_no_progress() -> None:
    away = SidecarUnavailableError("the sidecar of a does not answer", node="a")
    with pytest.raises(StalledError, match="made no progress for 61 s"):
        watch({"a": away}, {"a": node("a", State.STAGING)}, again=True)()


def test_a_failure_that_the_node_gets_over_is_forgotten() -> None:
    away = SidecarUnavailableError("the sidecar of a does not answer", node="a")
    turns = [answer for count in range(200) for answer in (away, node("a", State.STAGING, bytes_done=count))]
    assert set(watch(*({"a": turn} for turn in turns), {"a": node("a", State.STAGED)})()) == {"a"}


def test_work_on_another_version_is_progress_of_the_node() -> None:
    def busy(count: int) -> NodeStatus:
        waiting = VersionStatus(version="2026-11-22", build_id="b", state=State.INGESTING, step="waiting for an ingest process")
        other = VersionStatus(version="2026-11-01", build_id="o", state=State.INGESTING, step=f"checked {count} of 200 entries")
        return NodeStatus(node="a", desired_epoch=7, topology_epoch=1, datasets={"person": (waiting,), "place": (other,)})

    clock = Clock()
    ready = Target("person", "2026-11-22", State.READY, epoch=7)
    script = Script([*({"a": busy(count)} for count in range(200)), {"a": node("a", State.READY)}])
    one = Watch(script, Notes(), Patience(stall_s_max=60), clock, clock.sleep)  # type: ignore[arg-type]
    assert set(one.until(ready, Step.INGEST)) == {"a"}


def test_one_node_that_stands_still_while_others_move_is_told_once() -> None:
    notes = Notes()
    away = SidecarUnavailableError("the sidecar of b does not answer", node="b")
    moving: list[Mapping[str, Answer]] = [{"a": node("a", State.STAGING, bytes_done=count), "b": away} for count in range(100)]
    watch(*moving, {"a": node("a", State.STAGED), "b": node("b", State.STAGED)}, notes=notes)()
    assert notes == ["stage: b has made no progress for 30 s (the sidecar of b does not answer)"]


def test_a_newer_epoch_asks_whether_the_version_is_still_wanted() -> None:
    def refuse() -> None:
        raise ConcurrentLoadError("withdrawn by ann")

    with pytest.raises(ConcurrentLoadError, match="withdrawn by ann"):
        watch({"a": NodeStatus(node="a", desired_epoch=8, topology_epoch=1)}, check=refuse)()


def test_a_withdrawn_version_is_gone_when_no_node_that_answers_knows_it() -> None:
    away = SidecarUnavailableError("the sidecar of b does not answer", node="b")
    gone = NodeStatus(node="a", desired_epoch=8, topology_epoch=1)
    clock = Clock()
    turns = [{"a": node("a", State.FAILED), "b": away}, {"a": node("a", State.FAILED, epoch=8), "b": away}, {"a": gone, "b": away}]
    one = Watch(Script(turns), Notes(), Patience(withdraw_s_max=10), clock, clock.sleep)  # type: ignore[arg-type]
    assert one.until_gone("person", "2026-11-22", 8) == []
    one = Watch(Script(turns[:2]), Notes(), Patience(withdraw_s_max=10), clock, clock.sleep)  # type: ignore[arg-type]
    assert one.until_gone("person", "2026-11-22", 8) == ["a"]
