"""The ingest process: `python -m ingest_sidecar.worker`; what it reads and answers is in ingest.py.

For every shard it makes and publishes a version directory (making.py), or what an upsert needs (prepare.py).

Error handling: a RedkvError goes to standard output as JSON, with exit code 1, and nothing unpublished stays; anything else is a traceback
on standard error. The process does not outlive its sidecar.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from threading import Thread

from ingest_sidecar.disk import disk_failure
from ingest_sidecar.job import IngestJob
from ingest_sidecar.making import make_version
from ingest_sidecar.prepare import prepare_upsert
from ingest_sidecar.priority import Aside
from pipeline.format.crashpoints import IngestPoint, crash_point
from pipeline.format.errors import RedkvError

READ_BYTES = 64 << 10
REST_S_MAX = 0.5  # between two looks at the pace
BURST_S = 1.0  # of work that no pace stretches: all of a version of some GB, of which readers notice less than of waiting for it
TOLD_BYTES = 64 << 20  # between two signs of life: far from the coordinator's patience, at any pace


def main() -> int:
    """Do the job on standard input; the exit code."""
    said = _lines(sys.stdin.fileno())
    job = IngestJob.from_line(next(said))
    pace = Pace()
    Thread(target=_follow_sidecar, args=(said, pace), daemon=True).start()
    aside = Aside() if job.aside else None  # after that thread, which ends the process when it has to
    try:
        told = _Told(pace, aside)
        for shard in job.shards:
            if job.upsert:
                prepare_upsert(job, shard, told.add)
            else:
                make_version(job, shard, told.add)
    except RedkvError as failed:
        _answer({"error": failed.to_json()})
        return 1
    except OSError as failed:
        _answer({"error": disk_failure(failed, f"ingesting {job.dataset} {job.version}").to_json()})
        return 1
    _answer({"made": [shard.name for shard in job.shards]})
    crash_point(IngestPoint.ANSWERED)
    return 0


class Pace:
    """The share of time that this process may run: after each piece of work it rests for the others' share. The first `burst_s` of work
    are free, unless it is told to pause.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep, burst_s: float = BURST_S
    ) -> None:
        self.share = 1.0
        self._free_s = burst_s
        self._clock, self._sleep = clock, sleep
        self._began = clock()

    def rest(self) -> None:
        """Pause as long as the work since the last rest asks for; at a share of 0, until there is one again."""
        worked_s, rested_s = self._clock() - self._began, 0.0
        if self.share:
            free_s = min(worked_s, self._free_s)
            self._free_s -= free_s
            worked_s -= free_s
        while (share := self.share) < 1.0 and (share == 0.0 or rested_s < worked_s * (1 - share) / share):
            pause_s = REST_S_MAX if share == 0.0 else min(REST_S_MAX, worked_s * (1 - share) / share - rested_s)
            self._sleep(pause_s)
            rested_s += pause_s
        self._began = self._clock()


def _follow_sidecar(said: Iterator[bytes], pace: Pace) -> None:
    """Standard input brings paces, and ends when the sidecar does, however it died."""
    for line in said:
        pace.share = float(line)
    os._exit(1)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Whole lines. Not by sys.stdin, whose lock a waiting thread would hold when this process ends."""
    rest = b""
    while data := os.read(descriptor, READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _answer(record: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


class _Told:
    """Counts checked bytes over all shards, says so from time to time, and keeps the pace."""

    def __init__(self, pace: Pace, aside: Aside | None) -> None:
        self._pace, self._aside = pace, aside
        self._bytes = self._told = 0

    def add(self, count: int) -> None:
        self._bytes += count
        if self._bytes - self._told >= TOLD_BYTES:
            self._told = self._bytes
            _answer({"bytes": self._bytes})
        if self._aside is not None:
            self._aside.look()
        self._pace.rest()


if __name__ == "__main__":
    sys.exit(main())
