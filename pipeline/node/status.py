"""The status file of a node: what its processes do, for people and monitors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline.format.records import Record, VersionedRecord


class ProcessState(StrEnum):
    """What a process does."""

    RUNNING = "running"
    WAITING = "waiting"  # it ended, and is started again soon
    CRASH_LOOP = "crash loop"  # as waiting, for longer: it ended again and again
    STOPPED = "stopped"  # the node is stopping, or has stopped


class ProcessStatus(Record):
    """One process: `starts` so far, `young_ends` in a row, `last_end` (e.g. `code 1`, `signal 9`), `since_ms` of this state."""

    state: ProcessState
    pid: int | None
    starts: int
    young_ends: int
    last_end: str | None
    since_ms: int


class NodeProcesses(VersionedRecord):
    """All processes of a node by name; `pid` is that of `redkv node`."""

    node: str
    pid: int
    processes: dict[str, ProcessStatus]


def write_status(path: Path, status: NodeProcesses) -> None:
    """Replace the file at once, so that a reader finds a whole one. It is news, not memory: not synced."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(status.to_json())
    fresh.replace(path)
