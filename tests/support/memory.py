"""How much memory Spark's Python workers take."""

from __future__ import annotations

from threading import Event, Thread
from typing import Self

import psutil

SAMPLE_S = 0.1  # how often it is looked at
MIB = 1 << 20


class WorkerMemory:
    """The largest resident size of any Python worker while it is watched, in MiB."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            for one in psutil.Process().children(recursive=True):
                try:
                    if "python" in one.name():
                        self.peak_mib = max(self.peak_mib, one.memory_info().rss / MIB)
                except psutil.NoSuchProcess:
                    continue
