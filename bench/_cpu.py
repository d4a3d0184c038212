"""CPU time of processes, as Linux' /proc tells it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

import psutil

SAMPLE_S = 0.1  # a process that ends between two looks loses so much at most
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME_AT = 11  # of the fields after the command's name: utime, stime, and both of the children that were waited for


def cpu_s(pids: Iterable[int]) -> float:
    """CPU-seconds of some processes so far, and of their children that ended."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
        total += sum(map(int, fields[_UTIME_AT : _UTIME_AT + 4]))
    return total / _TICKS_PER_S


class TreeCpu:
    """CPU-seconds of all that descends from one process while it is watched, those that end meanwhile included."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: dict[tuple[int, float], float] = {}
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """What all of them took."""
        return sum(self._seen.values())

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            with suppress(psutil.NoSuchProcess):
                for one in (self._root, *self._root.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        times = one.cpu_times()
                        self._seen[one.pid, one.create_time()] = times.user + times.system


class CpuCurve:
    """CPU-seconds of some processes over time, while they are watched."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._seen: list[tuple[float, float]] = []
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def between(self, begin: float, end: float) -> float:
        """CPU-seconds between two moments of time.perf_counter, as far as they were watched."""
        return self._at(end) - self._at(begin)

    def _at(self, moment: float) -> float:
        return next((cpu for at, cpu in reversed(self._seen) if at <= moment), self._seen[0][1])

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        self._seen.append((time.perf_counter(), cpu_s(self._pids)))
