"""Priorities: a sidecar stands behind the shards of its node, for the CPU and for the disk.

Linux keeps both per thread, and a new thread or process inherits them from the one that starts it: so a sidecar lowers itself first of all,
and its downloads and ingest processes are low from their first instruction.

An ingest process goes further (`Aside`): a thread that is merely nice keeps a CPU until its slice is over, some milliseconds in which a
shard that has a request waits; an idle one (SCHED_IDLE) leaves at once. On a node that has no CPU to spare for long, it is nice again: it
would come to no end.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NICE_MAX = 19
IO_CLASS_BEST_EFFORT = 2
IO_LEVEL_LOWEST = 7  # of best effort; the idle class beyond it may starve for ever beside readers
LOOK_S = 1.0
STARVED_S = 5.0  # so long has a process waited for a CPU that starves
STARVED_SHARE = 0.05  # and so small a share of the time in which it could have run, it ran
_CLASS_SHIFT = 13
_WHO_PROCESS = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # the C library has no function for this system call


def lower_priority(nice: int) -> None:
    """Lower the calling thread by `nice` for the CPU, and to the lowest level of best effort for the disk.

    A container may forbid the first, a machine may not know the second: then it runs at the priority that it has.
    """
    with suppress(OSError):
        now = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE_MAX, now + nice))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, IO_CLASS_BEST_EFFORT << _CLASS_SHIFT | IO_LEVEL_LOWEST)


class Aside:
    """The calling thread, idle until it starves. `times` gives the seconds that it ran, and those that it waited for a CPU."""

    def __init__(self, times: Callable[[], tuple[float, float]] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._times, self._clock = times or run_times, clock
        self._looked = clock()
        self.is_idle = _schedule(os.SCHED_IDLE)

    def look(self) -> None:
        """Whether it may stay so; costs nothing between two seconds."""
        if not self.is_idle or self._clock() < self._looked + LOOK_S:
            return
        self._looked = self._clock()
        ran_s, waited_s = self._times()
        if waited_s > STARVED_S and ran_s < STARVED_SHARE * (ran_s + waited_s):
            self.is_idle = not _schedule(os.SCHED_OTHER)


def run_times() -> tuple[float, float]:
    """How long the calling thread ran, and how long it waited for a CPU, in seconds, as the kernel counts; 0 where it does not."""
    try:
        ran_ns, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def _schedule(policy: int) -> bool:
    """Change the calling thread's policy; whether that was allowed."""
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except OSError:
        return False
    return True
