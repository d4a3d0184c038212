"""Once a second: clients that are idle for too long, and clients that do not read what they asked for.

Rules:
- A connection is stalled from when its unread replies pass its high-water mark until they are read down to the low one. Beyond that mark
  its commands wait, so what it holds is the mark and one reply. Only stalled connections are looked at.
- `client-output-buffer-limit` of normal clients: over the hard limit it is cut off, and so is who stalled over the soft limit for longer
  than its seconds without a break. A client that reads on, however slowly, has breaks.
- Idle clients are looked for in portions, so that ten thousand of them do not hold the loop.
- Whoever is cut off is counted and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Protocol

from server.session import Services, Session

LOOK_S = 1.0  # the limits are in whole seconds
SESSIONS_PER_TURN = 1_000  # about 0.2 ms
MS_PER_S = 1_000


class Watched(Protocol):
    """What a connection shows."""

    session: Session | None
    stalled_s: float
    """The loop's time since when it is stalled."""

    def unsent_bytes(self) -> int:
        """Replies that the kernel has not taken yet."""

    def abort(self) -> None:
        """Close at once."""


class Watch:
    """The look at all connections of a shard."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stalled: dict[Watched, None] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look once a second from now on."""
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def stalled(self, connection: Watched) -> None:
        """A connection does not read its replies; one far over the limit is cut off at once."""
        connection.stalled_s = asyncio.get_running_loop().time()
        self._stalled[connection] = None
        self._check(connection, connection.stalled_s)

    def moving(self, connection: Watched) -> None:
        """It reads again, or is gone."""
        self._stalled.pop(connection, None)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = asyncio.get_running_loop().time()
            self._services.stats.look(now_s)
            for connection in tuple(self._stalled):
                self._check(connection, now_s)
            if self._services.config.timeout_s:
                await self._close_idle()

    def _check(self, connection: Watched, now_s: float) -> None:
        config = self._services.config
        unsent = connection.unsent_bytes()
        hard = 0 < config.output_hard_bytes < unsent
        soft = 0 < config.output_soft_bytes <= unsent and now_s - connection.stalled_s > config.output_soft_s
        if (hard or soft) and connection.session is not None:
            self._stalled.pop(connection, None)
            self._services.stats.clients_cut_output += 1
            self._services.warnings.warning(
                "client cut off: it does not read its replies",
                client=connection.session.peer,
                name=connection.session.name.decode(),
                unread_bytes=unsent,
                limit="hard" if hard else "soft",
            )
            asyncio.get_running_loop().call_soon(connection.abort)  # not within the write that found it

    async def _close_idle(self) -> None:
        services = self._services
        for portion in _portions(list(services.sessions.values())):
            since_ms = services.engine.clock() - services.config.timeout_s * MS_PER_S
            for session in portion:
                if session.last_ms < since_ms and not session.admin and session.client is not None:
                    services.stats.clients_closed_idle += 1
                    session.client.abort()
            await asyncio.sleep(0)


def _portions(sessions: list[Session]) -> Iterator[list[Session]]:
    rest = iter(sessions)
    while portion := list(islice(rest, SESSIONS_PER_TURN)):
        yield portion
