"""What the status says while bytes come in."""

from __future__ import annotations

import pytest

from ingest_sidecar.progress import RATE_WINDOW_S, Progress
from pipeline.format.errors import IllegalTransitionError, StoreUnavailableError
from pipeline.load.states import Event, State


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress("2026-11-22", "b", clock)


def test_rate_and_eta_follow_the_last_seconds(progress: Progress, clock: Clock) -> None:
    progress.plan(2, 10_000)
    for _ in range(4):
        clock.now += 1
        progress.add_bytes(1000)
    clock.now += 1
    status = progress.status()
    assert (status.bytes_done, status.bytes_total, status.rate, status.eta_s) == (4000, 10_000, 1000.0, 6.0)
    clock.now += RATE_WINDOW_S + 1
    status = progress.status()
    assert (status.rate, status.eta_s, status.idle_s) == (0.0, None, RATE_WINDOW_S + 2)


def test_bytes_that_were_thrown_away_are_taken_back(progress: Progress) -> None:
    progress.plan(1, 100)
    progress.add_bytes(60)
    progress.add_bytes(-60)
    assert progress.status().bytes_done == 0
    assert progress.status().rate == 0.0


def test_the_state_moves_along_the_table_only(progress: Progress) -> None:
    progress.apply(Event.STAGE)
    with pytest.raises(IllegalTransitionError):
        progress.apply(Event.ACTIVATE)
    assert progress.state is State.STAGING


def test_an_error_is_shown_as_json(progress: Progress) -> None:
    progress.error = StoreUnavailableError("away", object="x")
    error = progress.status().error
    assert error is not None
    assert (error["error"], error["outcome"]) == ("StoreUnavailableError", "retryable")
