"""The write-ahead log, brought to the disk as Redis' `appendfsync` says.

Rules:
- `always`: a reply to a write leaves after `synced`. Whoever asks while the disk is busy shares the next sync with all others who do.
- `everysec`: once a second, if something was written since. `no`: the kernel decides.
- The disk is waited for in a thread; the event loop goes on.
- A sync that fails is told: to those who wait for it, and to every write until one succeeds (`failure`). It is tried every second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from pipeline.format.errors import NodeError
from server.storage.live import LiveStore

ALWAYS, EVERYSEC, NO = "always", "everysec", "no"
POLICIES = (ALWAYS, EVERYSEC, NO)
PERIOD_S = 1.0


class WalSync:
    """The syncs of one live database. `policy` is asked each time, as it can be changed; `syncs` counts those that came to an end."""

    def __init__(self, live: LiveStore, policy: Callable[[], str]) -> None:
        self._live = live
        self._policy = policy
        self._threads = ThreadPoolExecutor(1, "wal-sync")
        self._under_way: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._periodic: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("server.walsync")
        self.failure: str | None = None
        self.syncs = 0

    @property
    def before_replies(self) -> bool:
        """Whether replies to writes wait for the disk."""
        return self._policy() == ALWAYS

    def synced(self) -> asyncio.Future[None]:
        """Done when all that is written now is on the disk; a NodeError if it can't be brought there."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.create_future()
        asked = self._next
        if self._under_way is None:
            self._begin(loop)
        return asked

    def start(self) -> None:
        """Sync once a second from now on, as far as the policy wants it."""
        self._periodic = asyncio.get_running_loop().create_task(self._repeat())

    async def stop(self) -> None:
        """Sync a last time."""
        if self._periodic is not None:
            self._periodic.cancel()
        with suppress(NodeError):  # is logged
            await self.synced()
        self._threads.shutdown()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._under_way, self._next = self._next, None
        loop.run_in_executor(self._threads, self._live.database.sync).add_done_callback(self._end)

    def _end(self, done: asyncio.Future[None]) -> None:
        waiting, self._under_way = self._under_way, None
        failed = done.exception()
        if failed is None:
            self.failure = None
            self.syncs += 1
        else:
            self.failure = str(failed)
            self._log.error("the write-ahead log can't be brought to the disk", error=self.failure)
        if waiting is not None and not waiting.cancelled():
            if failed is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(failed)
                waiting.exception()  # not every sync is waited for
        if self._next is not None:
            self._begin(done.get_loop())

    async def _repeat(self) -> None:
        commits = -1
        while True:
            await asyncio.sleep(PERIOD_S)
            if self.failure is None and (self._live.commits == commits or self._policy() == NO):
                continue
            commits = self._live.commits
            try:
                await self.synced()
            except NodeError:
                commits = -1  # once more
