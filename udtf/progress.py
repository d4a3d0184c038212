"""How far a running build is, as Spark's own status store tells it.

A thread looks about once a second at the newest job of the build's group, and tells what it sees: on a terminal as one line that is
written over, otherwise as a line of the structured log every few seconds. Spark counts a running task's rows at its heartbeats.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, TextIO

import structlog
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException

LOOK_S = 1.0
LOG_EVERY_S = 5.0

_log = structlog.get_logger("udtf")


def job_group(dataset: str, version: str) -> str:
    """The job group of a build's jobs."""
    return f"redkv {dataset} {version}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at one Spark job: what it does, its tasks, the rows and bytes that its newest stage has read, and seconds since it began."""

    step: str
    tasks_done: int
    tasks: int
    rows: int
    bytes: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go if the other tasks take as long; None before the first is done."""
        return self.seconds * (self.tasks - self.tasks_done) / self.tasks_done if self.tasks_done else None

    @property
    def text(self) -> str:
        """All of it in a line."""
        to_go = "" if self.eta_s is None else f", {self.eta_s:,.0f} s to go"
        what = (
            f"{self.tasks_done} of {self.tasks} tasks, {self.rows:,} rows, {self.rows_per_s:,.0f} rows/s, {self.bytes / (1 << 20):,.0f} MiB"
        )
        return f"{self.step}: {what}{to_go}"


Tell = Callable[[Seen | None], None]
"""What was seen; at the end, None."""


@contextmanager
def watched(spark: SparkContext, group: str, tell: Tell) -> Iterator[None]:
    """Within it, what the group's jobs do is told."""
    ended = Event()
    thread = Thread(target=_watch, args=(spark, group, tell, ended), name="build progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell(None)


def teller(stream: TextIO = sys.stderr) -> Tell:
    """Tells people at a terminal, or the log."""
    return _Line(stream) if stream.isatty() else _Log()


def look(spark: SparkContext, group: str, began: dict[int, float]) -> Seen | None:
    """The group's newest running job, None if none runs. `began` keeps when each was first seen."""
    tracker = spark.statusTracker()
    running = [job for job in tracker.getJobIdsForGroup(group) if (info := tracker.getJobInfo(job)) and info.status == "RUNNING"]
    if not running:
        return None
    job = max(running)
    store = spark._jsc.sc().statusStore()  # noqa: SLF001 -- the tracker counts tasks, but neither rows nor bytes
    started = began.setdefault(job, time.monotonic())
    stages = [_Stage.of(store.lastStageAttempt(stage)) for stage in sorted(tracker.getJobInfo(job).stageIds)]  # type: ignore[union-attr]
    newest = next((stage for stage in reversed(stages) if stage.begun), stages[0])
    description = store.job(job).description()
    return Seen(
        step=description.get() if description.isDefined() else group,
        tasks_done=sum(stage.done for stage in stages),
        tasks=sum(stage.tasks for stage in stages),
        rows=newest.rows,
        bytes=newest.bytes,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Stage:
    tasks: int
    done: int
    begun: bool
    rows: int
    bytes: int

    @classmethod
    def of(cls, data: Any) -> _Stage:
        return cls(
            tasks=data.numTasks(),
            done=data.numCompleteTasks(),
            begun=bool(data.numActiveTasks() or data.numCompleteTasks()),
            rows=data.inputRecords() + data.shuffleReadRecords(),
            bytes=data.inputBytes() + data.shuffleReadBytes(),
        )


def _watch(spark: SparkContext, group: str, tell: Tell, ended: Event) -> None:
    began: dict[int, float] = {}
    while not ended.wait(LOOK_S):
        try:
            seen = look(spark, group, began)
        except (Py4JError, PySparkException) as gone:  # Spark forgets old stages, and stops before this thread does
            _log.debug("no progress to see", reason=str(gone))
            continue
        if seen:
            tell(seen)


class _Line:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, seen: Seen | None) -> None:
        self._stream.write(f"\r\x1b[K{seen.text if seen else ''}")
        self._stream.flush()


class _Log:
    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, seen: Seen | None) -> None:
        now = time.monotonic()
        if seen is None or now < self._due:
            return
        self._due = now + LOG_EVERY_S
        counts = {"tasks_done": seen.tasks_done, "tasks": seen.tasks, "rows": seen.rows, "bytes": seen.bytes}
        _log.info("progress", text=seen.text, step=seen.step, **counts, rows_per_s=round(seen.rows_per_s), eta_s=seen.eta_s)
