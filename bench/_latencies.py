"""Latencies as the shards themselves count them, between any two moments: REDKV LATENCY, asked once a second beside all else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from pipeline.format.admin import LatencyReport, latency_top_ns
from tests.support.resp import RawClient

LOOP = "loop"
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What all shards had counted at a moment: commands together, and each shard's loop."""

    at: float
    commands: Counter[int]
    loops: tuple[Counter[int], ...]


class Latencies:
    """Looks at shards by their admin sockets, once a second while the block runs, and whenever `look` is called."""

    def __init__(self, sockets: Sequence[Path], commands: Iterable[str]) -> None:
        self._sockets, self._commands = sockets, frozenset(commands)
        self.looks: list[Look] = []
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> Look:
        """What they say now."""
        commands: Counter[int] = Counter()
        loops = []
        for path in self._sockets:
            with RawClient(path) as client:
                raw = client.call("REDKV", "LATENCY").partition(b"\r\n")[2]
            report = LatencyReport.from_json(raw, str(path))
            for name in self._commands & report.histograms.keys():
                commands.update(report.histograms[name])
            loops.append(Counter(report.histograms.get(LOOP, {})))
        return Look(time.perf_counter(), commands, tuple(loops))

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self.looks.append(self.look())


def p99_us(before: Look, after: Look) -> float:
    """The p99 of all commands between two looks, in microseconds; within its bucket, a straight line is drawn."""
    counts = after.commands - before.commands
    total, seen = counts.total(), 0
    for bucket in sorted(counts):
        if seen + counts[bucket] >= 0.99 * total:
            low, high = latency_top_ns(bucket - 1), latency_top_ns(bucket)
            return (low + (high - low) * (0.99 * total - seen) / counts[bucket]) / 1000
        seen += counts[bucket]
    raise ValueError("no command was counted: do the readers read?")


def longest_gap_ms(before: Look, after: Look) -> float:
    """The most that any shard's loop was late between two looks, in milliseconds: the end of the bucket."""
    counts = [now - then for then, now in zip(before.loops, after.loops, strict=True)]
    return max((latency_top_ns(bucket) / 1e6 for one in counts for bucket in one), default=0.0)
