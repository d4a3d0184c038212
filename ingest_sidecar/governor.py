"""Readers come first: once a second, the shards' own latencies decide how fast work on this node may go.

Rules:
- The pace is 1 where the readers' p99 is within its budget. Beyond it, the pace halves every second; back within, it rises by a twentieth.
- It never falls below a floor: the settings' `pace_min`, or what a spec's deadline asks for (deadline.py). With a floor of 0, it ends in a
  pause.
- What counts is the worst shard's p99 of the last second: of clients' commands, and of how late its event loop turned.
- A shard that is away, or that nobody reads, or too few to judge by, says nothing: there is nobody to be slow for. One that is there and
  does not answer within ANSWER_S is as late as that: readers wait with the sidecar.
- The pace is the share of DOWNLOAD_BYTES_S (or of the operator's limit) that downloads may take, and of time that ingestion may run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from pipeline.format.admin import AdminCommand, LatencyReport, latency_top_ns
from pipeline.format.errors import RedkvError
from pipeline.load.status import Throttle

LOOK_S = 1.0
ANSWER_S = 1.0
LOOP = "loop"  # the histogram of the shard's event loop, beside those of commands
FALL = 0.5
RISE = 0.05
PAUSE = 0.01  # a pace below it is none
SAMPLES_MIN = 20  # fewer give no p99 worth slowing down for
DOWNLOAD_BYTES_S = 400e6  # what a pace is a share of, where the operator set no limit: a node's usual share of its network

Counts = Mapping[int, int]


class Governor:
    """Decides `pace`, and leaves downloads their share of it. `run` until cancelled.

    `deadlines` is told what downloads take at full speed, in bytes/s, and gives the floor that the versions' deadlines ask for.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        clients: Mapping[str, ShardClient],
        bucket: TokenBucket,
        metrics: Metrics,
        deadlines: Callable[[float], float],
    ) -> None:
        self._budget_us = settings.readers_p99_ms_max * 1000
        self._floor = settings.pace_min
        self._clients, self._bucket, self._metrics, self._deadlines = clients, bucket, metrics, deadlines
        self._before: dict[str, LatencyReport] = {}
        self._p99_us: float | None = None
        self._reason = ""
        self._log = structlog.get_logger("ingest_sidecar")
        self.pace = 1.0

    @property
    def throttle(self) -> Throttle:
        """What was decided, and why."""
        return Throttle(pace=self.pace, rate=self._bucket.rate, p99_us=self._p99_us, reason=self._reason)

    async def run(self) -> None:
        """Look and decide, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One look and decision."""
        seen = await asyncio.gather(*(self._p99_of(name) for name in self._clients))
        worst = max((one for one in seen if one is not None), default=None)
        self._p99_us = worst[0] if worst else None
        full_bytes_s = self._bucket.limit or DOWNLOAD_BYTES_S
        floor = max(self._floor, self._deadlines(full_bytes_s))
        before, self.pace = self.pace, next_pace(self.pace, self._p99_us, self._budget_us, floor)
        if self.pace == 1.0:
            self._reason = ""
        elif worst is not None and worst[0] > self._budget_us:
            self._reason = f"p99 of {worst[2]} in shard {worst[1]} is {worst[0]:.0f} us, the budget {self._budget_us:.0f} us"
        else:
            self._reason = "the readers' p99 is within its budget again: rising slowly"
        if self._floor < self.pace == floor < 1.0:
            self._reason += "; not slower, for a deadline"
        if self.pace < before:
            self._log.info("slowed down", pace=self.pace, reason=self._reason)
        self._bucket.leave(None if self.pace == 1.0 else max(1.0, self.pace * full_bytes_s))
        self._metrics.pace.set(self.pace)
        self._metrics.p99.set((self._p99_us or 0.0) / 1e6)

    async def _p99_of(self, shard: str) -> tuple[float, str, str] | None:
        """The worst p99 of a shard since the last look, in microseconds, with the shard and what it is of."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._clients[shard].admin(AdminCommand.LATENCY)
            report = LatencyReport.from_json(answer, f"latencies of {shard}")
        except TimeoutError:
            return ANSWER_S * 1e6, shard, "an answer"
        except RedkvError:  # the reconcile loop tells of a shard that is away
            self._before.pop(shard, None)
            return None
        before = self._before.get(shard)
        self._before[shard] = report
        if before is None:
            return None
        if all(counts == before.histograms.get(name) for name, counts in report.histograms.items() if name != LOOP):
            return None
        found = []
        for name, counts in report.histograms.items():
            p99 = p99_us(counts, before.histograms.get(name, {}))
            if p99 is not None:
                found.append((p99, shard, name))
        return max(found, default=None)


def next_pace(pace: float, p99: float | None, budget: float, floor: float) -> float:
    """The pace after a look: falls fast, rises slowly."""
    if p99 is not None and p99 > budget:
        fallen = max(floor, pace * FALL)
        return fallen if fallen >= PAUSE else floor
    return min(1.0, max(floor, pace + RISE))


def p99_us(now: Counts, before: Counts) -> float | None:
    """The p99 in microseconds of what was counted between two reports; None if that is too little, or the shard began anew."""
    counts = {bucket: count - before.get(bucket, 0) for bucket, count in sorted(now.items())}
    total = sum(counts.values())
    if total < SAMPLES_MIN or min(counts.values()) < 0:
        return None
    seen = 0
    for bucket, count in counts.items():
        seen += count
        if seen >= 0.99 * total:
            return latency_top_ns(bucket) / 1000
    return None
