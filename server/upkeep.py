"""What a shard does beside its clients: expired keys are reclaimed, garbage is swept, the space of flushed keys is given back.

Rules:
- Each task is a loop of bounded steps with pauses between them; what fails is logged, and tried again after a while.
- While the write-ahead log can't be brought to the disk, nothing is removed.
- Compaction runs in a thread, one at a time; asked for while it runs, it runs once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import structlog

from pipeline.format.errors import NodeError, RedkvError
from server.storage.engine import Engine
from server.storage.gate import Gate
from server.storage.live import ALL_SLOTS
from server.storage.reclaim import Reclaim
from server.storage.sweep import Sweep
from server.storage.walsync import WalSync

FAILURE_PAUSE_S = 10.0


class Upkeep:
    """The background tasks of one shard. `compaction` is the one under way."""

    def __init__(self, engine: Engine, gate: Gate, wal: WalSync) -> None:
        self.reclaim = Reclaim(engine, gate.busy, monotonic)
        self.sweep = Sweep(engine)
        self._database = engine.live.database
        self._wal = wal
        self._tasks: list[asyncio.Task[None]] = []
        self.compaction: asyncio.Task[None] | None = None
        self._again = False
        self._log = structlog.get_logger("server.upkeep")

    def start(self) -> None:
        """Begin, on the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._repeat(step)) for step in (self.reclaim.step, self.sweep.step)]

    async def stop(self) -> None:
        """End all of it; a compaction is broken off."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._again = False
        if self.compaction is not None:
            self._database.end_background_work()
            await self.compaction

    def compact(self) -> None:
        """Give the space of removed live keys back, in the background."""
        if self.compaction is not None:
            self._again = True
            return
        self.compaction = asyncio.get_running_loop().create_task(self._compact())

    async def _compact(self) -> None:
        self._again = True
        try:
            await asyncio.sleep(0)  # what was asked for in this turn is committed at its end
            while self._again:
                self._again = False
                await asyncio.to_thread(self._database.compact, *ALL_SLOTS)
        except NodeError as failed:
            self._log.warning("live keys were not compacted", error=failed.message)
        finally:
            self.compaction = None

    async def _repeat(self, step: Callable[[], float]) -> None:
        while True:
            pause_s = FAILURE_PAUSE_S
            if self._wal.failure is None:
                try:
                    pause_s = step()
                except RedkvError as failed:
                    self._log.error("upkeep failed", step=step.__qualname__, error=failed.message)
                except Exception as failed:  # noqa: BLE001 -- a task that ended for good would leave garbage for ever
                    self._log.error("upkeep failed", step=step.__qualname__, exc_info=failed)
            await asyncio.sleep(pause_s)
