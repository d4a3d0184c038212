"""Named points between the durable steps of a load, where tests let a process die.

Without `REDKV_CRASH_AT` in its environment, a process passes them all. With it, the first process that reaches the point of that name
makes the file `REDKV_CRASH_MARK`, writes its pid there, and sends itself `REDKV_CRASH_SIGNAL` (KILL, the default; or STOP, so that a test
can kill another process meanwhile); whoever comes later finds the file and passes.

The sidecar has a point per transition of pipeline/load/states.py, the coordinator two per step of pipeline/load/progress.py (when it
begins, and when its change of the desired state is written), both named after them; the ingest process and the shard have these here,
and upserts some of their own.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum

AT = "REDKV_CRASH_AT"
MARK = "REDKV_CRASH_MARK"
SIGNAL = "REDKV_CRASH_SIGNAL"


class IngestPoint(StrEnum):
    """Within the ingest process, in the order of its work on one shard."""

    BEGUN = "ingest.begun"
    FILLED = "ingest.filled"
    CHECKED = "ingest.checked"
    DROPPED = "ingest.foreign slots dropped"
    LAID = "ingest.delta laid over"
    SYNCED = "ingest.synced"
    PUBLISHED = "ingest.published"
    ANSWERED = "ingest.answered"


class ShardPoint(StrEnum):
    """Within a shard: before and after each durable write of an admin command, and where a directory is opened or closed."""

    REGISTERING = "shard.registering"
    REGISTERED = "shard.registered"
    EXPECTED = "shard.expected"
    OPENED = "shard.opened"
    ACTIVATING = "shard.activating"
    ACTIVATED = "shard.activated"
    CLOSED = "shard.closed"
    UNREGISTERED = "shard.unregistered"


class UpsertPoint(StrEnum):
    """On an upsert's way into live databases: in the shard, before and after a unit goes in; in the sidecar, after the shard said so."""

    INGESTING = "shard.upsert ingesting"
    INGESTED = "shard.upsert ingested"
    UNIT_IN = "sidecar.upsert unit in"


_at = os.environ.get(AT)


def crash_point(name: str) -> None:
    """Pass the point of that name, or die there."""
    if name != _at:
        return
    try:
        mark = os.open(os.environ[MARK], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(mark, b"%d\n" % os.getpid())
    os.close(mark)
    os.kill(os.getpid(), signal.Signals[f"SIG{os.environ.get(SIGNAL, 'KILL')}"])
