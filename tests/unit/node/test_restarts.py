"""When a process is started again: waits that double, a crash loop, and the way out of it."""

from __future__ import annotations

from pipeline.node.restarts import EXIT_USAGE, LOOP_ENDS, LOOP_WAIT_S, STEADY_S, WAIT_S_MAX, WAIT_S_MIN, Restarts


def test_waits_double_until_the_crash_loop_begins() -> None:
    restarts = Restarts(jitter=lambda: 1.0)
    waits = [restarts.wait_s(1, 0.1) for _ in range(LOOP_ENDS - 1)]
    assert waits == [min(WAIT_S_MIN * 2**number, WAIT_S_MAX) for number in range(LOOP_ENDS - 1)]
    assert not restarts.in_loop
    assert [restarts.wait_s(-9, 0.1) for _ in range(3)] == [LOOP_WAIT_S] * 3
    assert restarts.in_loop


def test_a_process_that_lived_long_begins_anew() -> None:
    restarts = Restarts(jitter=lambda: 1.0)
    for _ in range(LOOP_ENDS):
        restarts.wait_s(1, STEADY_S - 0.1)
    assert restarts.in_loop
    assert restarts.wait_s(-9, STEADY_S) == WAIT_S_MIN
    assert (restarts.in_loop, restarts.young_ends) == (False, 0)
    assert restarts.wait_s(0, 1.0) == WAIT_S_MIN


def test_wrong_settings_are_a_crash_loop_at_once_until_they_are_mended() -> None:
    restarts = Restarts(jitter=lambda: 1.0)
    assert restarts.wait_s(EXIT_USAGE, 0.3) == LOOP_WAIT_S
    assert restarts.in_loop
    assert restarts.wait_s(1, 0.3) == 2 * WAIT_S_MIN
    assert not restarts.in_loop


def test_waits_are_shortened_at_random() -> None:
    waits = {Restarts().wait_s(1, 0.1) for _ in range(50)}
    assert len(waits) > 10
    assert all(WAIT_S_MIN / 2 <= wait <= WAIT_S_MIN for wait in waits)
