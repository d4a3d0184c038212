from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.format.queue import LoadQueue, QueuedLoad
from pipeline.load.queue import Waiter, beaten, joined, left, started, without_silent
from pipeline.load.turn import queue_line

DAY = "2026-11-22"


def load(dataset: str, priority: int = 0, **more: object) -> QueuedLoad:
    return QueuedLoad.model_validate({"dataset": dataset, "version": DAY, "priority": priority, "by": "ann@h:1", "asked_at_ms": 0, **more})


def queue(*loads: QueuedLoad) -> LoadQueue:
    return LoadQueue(cluster="c", loads=loads)


def names(loads: tuple[QueuedLoad, ...]) -> list[str]:
    return [one.dataset for one in loads]


def test_the_more_urgent_go_first_and_among_equals_those_that_came_first() -> None:
    found = queue(load("a"), load("b", 5), load("c"), load("d", 5), load("e", 9, started_at_ms=1))
    assert names(found.waiting) == ["b", "d", "a", "c"]
    assert names(found.running) == ["e"]


def test_a_load_starts_when_there_is_room_for_it_and_all_before_it() -> None:
    waiting = queue(load("a"), load("b", 5), load("c", started_at_ms=1))
    assert names(started(waiting, load("a"), 2, 7).running) == ["c"]
    assert names(started(waiting, load("b"), 2, 7).running) == ["b", "c"]
    assert names(started(waiting, load("a"), 3, 7).running) == ["a", "c"]
    assert started(waiting, load("c"), 1, 7) == waiting
    assert names(started(waiting, load("a"), 3, 7).waiting) == ["b"]


def test_a_load_of_the_same_version_shares_the_place_and_can_only_make_it_more_urgent() -> None:
    first = joined(queue(load("a", 3, started_at_ms=1)), load("a", 1, by="bob@h:2"))
    assert [(one.priority, one.by, one.started_at_ms, one.beat) for one in first.loads] == [(3, "bob@h:2", 1, 1)]
    assert joined(first, load("a", 4)).loads[0].priority == 4
    with pytest.raises(ValidationError, match="a version is in the queue twice"):
        queue(load("a"), load("a"))


def test_a_load_that_was_taken_for_dead_puts_itself_back() -> None:
    running = load("a", started_at_ms=1)
    assert beaten(queue(), running) == queue(running)
    assert beaten(queue(running), running).loads[0].beat == 1
    assert started(queue(), load("a"), 1, 7) == queue(load("a"))
    assert left(queue(running, load("b")), "a", DAY) == queue(load("b"))


def test_only_what_is_silent_by_the_waiters_own_clock_is_taken_away() -> None:
    now = [0.0]
    waiter = Waiter(lambda _: None, lambda _: None, lambda: 0, clock=lambda: now[0], silence_s_max=60)
    own, other, third = load("own"), load("other", started_at_ms=1), load("third")
    assert waiter.silent(queue(own, other, third), own) == []
    now[0] = 50.0
    third = third.model_copy(update={"beat": 1})
    assert waiter.silent(queue(own, other, third), own) == []
    now[0] = 61.0
    assert waiter.silent(queue(own, other, third), own) == [other]
    assert without_silent(queue(own, other), other) == queue(own)
    alive = queue(own, other.model_copy(update={"beat": 1}))
    assert without_silent(alive, other) == alive
    assert without_silent(queue(own), other) == queue(own)


def test_a_place_is_told_with_who_runs_since_when() -> None:
    told = queue_line(2, queue(load("a"), load("b"), load("c", 7, by="ann@h:4711", started_at_ms=1_795_305_600_000)))
    assert told == f"place 2 of 2; now: c {DAY} by ann@h:4711, running since 2026-11-22 00:00:00 UTC, priority 7"
