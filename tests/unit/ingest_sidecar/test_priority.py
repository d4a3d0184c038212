"""An ingest process leaves the CPU to others, until it gets none."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from ingest_sidecar.priority import LOOK_S, STARVED_S, STARVED_SHARE, Aside, run_times


@pytest.mark.parametrize(
    ("ran_s", "waited_s", "policy"),
    [
        (0.0, STARVED_S / 2, os.SCHED_IDLE),
        (1.0, 2 * STARVED_S, os.SCHED_IDLE),  # slow, but it goes on
        (100 * STARVED_S * STARVED_SHARE, 90 * STARVED_S, os.SCHED_IDLE),
        (0.01, 2 * STARVED_S, os.SCHED_OTHER),
    ],
)
def test_it_is_idle_until_it_starves(ran_s: float, waited_s: float, policy: int) -> None:
    def run() -> int:
        now = count()
        aside = Aside(lambda: (ran_s, waited_s), lambda: LOOK_S * next(now))
        assert (aside.is_idle, os.sched_getscheduler(0)) == (True, os.SCHED_IDLE)
        aside.look()
        aside.look()
        assert aside.is_idle == (policy == os.SCHED_IDLE)
        return os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as thread:  # a policy is a thread's own
        assert thread.submit(run).result() == policy


def test_the_kernel_counts_what_a_thread_ran() -> None:
    before, _ = run_times()
    sum(range(1_000_000))
    after, _ = run_times()
    assert after > before
