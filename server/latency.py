"""How long clients' commands take in this shard, as histograms that only grow; whoever asks twice sees what happened in between.

Rules:
- What is timed is one run: all commands of one received buffer, under the name of its last one, from its beginning until its replies are
  written to the socket. That is what a client waits for once its bytes are here: replies leave at the end of a turn of the loop, so the
  turn's other runs, and its writes, are in it. Not in it: the disk under `appendfsync always`, and the turns after the first of a command
  that takes several.
- To keep one costs a microsecond or two, so only every RUNS_PER_SAMPLE-th of a connection is.
- A turn of the loop that is late by SLOW_TURN_NS is logged, and the longest one kept.
- `loop` is how late the event loop turns: a timer's lateness, which sees what runs between the commands, and a processor taken away.
- Buckets are those of pipeline/format/admin.py: four per doubling.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from pipeline.format.admin import LATENCY_BUCKETS, LatencyReport, latency_bucket

LOOP = "loop"
RUNS_PER_SAMPLE = 8  # a p99 needs some hundred samples in a second, which is what a shard with anything to lose has many times over
NS_PER_MS = 1_000_000
SLOW_TURN_NS = 50 * NS_PER_MS  # a stall that a client with a usual timeout begins to feel
LOOP_LOOK_S = 0.02  # fifty looks a second see a gap of 20 ms, and cost nothing


class Latencies:
    """The histograms of one shard."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.loop_total_ns = 0  # of all its lateness
        self.longest_ns = 0  # the loop's longest stall
        self.slow_turns = 0
        self._log = structlog.get_logger("server.latency")

    def forget_longest(self) -> None:
        """Look for the longest stall anew."""
        self.longest_ns = self.slow_turns = 0

    def record(self, name: str, ns: int) -> None:
        """One run took so long."""
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = [0] * LATENCY_BUCKETS
        counts[latency_bucket(ns)] += 1

    def counts_of(self, name: str) -> list[int]:
        """A copy of one histogram."""
        return list(self._counts.get(name, [0] * LATENCY_BUCKETS))

    def report(self) -> LatencyReport:
        """All counts since the start."""
        return LatencyReport(
            histograms={
                name: {index: count for index, count in enumerate(counts) if count} for name, counts in sorted(self._counts.items())
            }
        )

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look how late the loop turns, from now on."""
        due_ns = time.perf_counter_ns() + int(LOOP_LOOK_S * 1e9)
        self._timer = loop.call_later(LOOP_LOOK_S, self._look, loop, due_ns)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop, due_ns: int) -> None:
        late_ns = max(0, time.perf_counter_ns() - due_ns)
        self.record(LOOP, late_ns)
        self.loop_total_ns += late_ns
        self.longest_ns = max(self.longest_ns, late_ns)
        if late_ns >= SLOW_TURN_NS:
            self.slow_turns += 1
            self._log.warning("the event loop stood still", ms=late_ns // NS_PER_MS)
        self.watch(loop)
