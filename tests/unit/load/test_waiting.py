"""The barrier, with nodes and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pipeline.format.errors import (
    ChecksumMismatchError,
    ConcurrentLoadError,
    CountMismatchError,
    DiskFullError,
    ShardUnavailableError,
    SidecarUnavailableError,
    StalledError,
)
from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.load.coverage import Require
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
        self.topology = Topology(cluster="c", epoch=1, nodes=())

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


def node(name: str, state: State, epoch: int = 7, topology: int = 1, **more: object) -> NodeStatus:
    version = VersionStatus.model_validate({"version": "2026-11-22", "build_id": "b", "state": state, **more})
    return NodeStatus(node=name, desired_epoch=epoch, topology_epoch=topology, datasets={"person": (version,)})


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


def test_a_topology_that_changes_meanwhile_is_followed_and_only_nodes_that_go_by_it_count() -> None:
    clock = Clock()
    turns = [
        {"a": node("a", State.STAGED, topology=2), "b": node("b", State.STAGED)},
        {"a": node("a", State.STAGED, topology=2), "b": node("b", State.STAGED)},
        {"a": node("a", State.STAGED, topology=2), "b": node("b", State.STAGED, topology=2, bytes_done=7)},
    ]
    script = Script(turns)

    def check() -> None:
        script.topology = Topology(cluster="c", epoch=2, nodes=())

    done = Watch(script, Notes(), Patience(), clock, clock.sleep, check).until(TARGET, Step.STAGE)  # type: ignore[arg-type]  # as above
    assert {name: one.bytes_done for name, one in done.items()} == {"a": 0, "b": 7}


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


def replicated() -> Topology:
    """Three nodes: `b` replicates what `a` owns, `c` is alone with its slots."""
    low, high = even_ranges(2)
    shards = (("a", (low,), None), ("b", (), "a-1"), ("c", (high,), None))
    nodes = [
        Node(name=name, sidecar_url="http://h:1", shards=(Shard(name=f"{name}-1", host="h", port=1, slots=slots, replica_of=primary),))
        for name, slots, primary in shards
    ]
    return Topology(cluster="c", epoch=1, nodes=tuple(nodes))


AWAY = SidecarUnavailableError("the sidecar of x does not answer", node="x")


def without(*names: str) -> dict[str, Answer]:
    return {name: AWAY if name in names else node(name, State.STAGED) for name in "abc"}


def any_watch(
    *turns: Mapping[str, Answer], notes: Notes, let_go: set[str] | None = None, again: bool = False
) -> Callable[[], dict[str, VersionStatus]]:
    clock, script = Clock(), Script(turns, again=again)
    script.topology = replicated()
    patience, gone = Patience(stall_s_max=60), set[str]() if let_go is None else let_go
    one = Watch(script, notes, patience, clock, clock.sleep, lambda: None, Require.ANY, gone)  # type: ignore[arg-type]  # as above
    return lambda: one.until(TARGET, Step.STAGE)


@pytest.mark.parametrize("away", ["a", "b"])
def test_any_owner_of_a_slot_suffices_if_that_is_required(away: str) -> None:
    notes = Notes()
    assert set(any_watch(without(away), notes=notes)()) == {"a", "b", "c"} - {away}
    told = "the sidecar of x does not answer"
    assert notes == [f"stage: goes on without {away} ({told}): every slot has another owner; it follows by itself when back"]


@pytest.mark.parametrize("away", [("c",), ("a", "b")])
def test_a_slot_without_an_owner_ends_it(away: tuple[str, ...]) -> None:
    with pytest.raises(StalledError, match="made no progress for 61 s"):
        any_watch(without(*away), notes=Notes())()


def test_a_node_that_works_is_waited_for_also_where_another_has_its_slots() -> None:
    notes = Notes()
    moving = [{**without(), "b": node("b", State.STAGING, bytes_done=count)} for count in range(200)]
    assert set(any_watch(*moving, without(), notes=notes)()) == {"a", "b", "c"}
    assert notes == []


def test_a_node_whose_shard_is_away_is_not_waited_for_and_one_that_only_stands_still_for_long() -> None:
    for error, seconds in ((ShardUnavailableError("shard b-1 does not answer"), 6), (DiskFullError("no space on node b"), 61)):
        notes, clock = Notes(), Clock()
        script = Script([{**without(), "b": node("b", State.FAILED, error=error.to_json())}])
        script.topology = replicated()
        one = Watch(script, notes, Patience(stall_s_max=60), clock, clock.sleep, require=Require.ANY)  # type: ignore[arg-type]  # as above
        assert set(one.until(TARGET, Step.STAGE)) == {"a", "c"}
        assert clock.now == seconds


def test_a_node_that_was_let_go_of_is_waited_for_again_when_it_is_back() -> None:
    let_go = {"b"}
    assert set(any_watch(without("b"), notes=(notes := Notes()), let_go=let_go)()) == {"a", "c"}
    assert (notes, let_go) == ([], {"b"})
    back = {**without(), "b": node("b", State.STAGING)}
    assert set(any_watch(back, without(), notes=notes, let_go=let_go)()) == {"a", "b", "c"}
    assert (notes, let_go) == ([], set())
