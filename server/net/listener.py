"""The two doors of a shard: TCP for clients, a Unix socket for this node's sidecar.

Rules:
- The Unix socket is made with access for this user alone, at no moment for others.
- File descriptors are raised to the hard limit; if that is not enough for `clients_max`, the log says so. Running out of them costs new
  connections (libuv accepts and closes them), never the loop.
- Closing sends what is written, and waits for it no longer than a named time.
"""

from __future__ import annotations

import asyncio
import os
import resource
from itertools import count
from pathlib import Path

import structlog

from pipeline.format.errors import NodeError
from server.executor import Executor
from server.net.connection import Connection, Connections
from server.net.watch import Watch
from server.session import Services
from server.settings import DESCRIPTORS_RESERVED

BACKLOG = 511  # Redis' tcp-backlog
CLOSE_WAIT_S = 2.0  # for peers that do not read their last replies
OWNER_ONLY_UMASK = 0o177


class Listener:
    """Both doors, and all connections that came in."""

    def __init__(self, services: Services, executor: Executor, doorkeeper: Executor) -> None:
        self._services = services
        self._executor = executor
        self._doorkeeper = doorkeeper  # runs the commands of who has not authenticated
        self._watch = Watch(services)
        self._connections = Connections(self._watch)
        self._ids = count(1)
        self._servers: list[asyncio.Server] = []
        self._log = structlog.get_logger("server.listener")

    async def open(self) -> None:
        """Listen.

        Raises:
            NodeError: an address can't be listened on.
        """
        settings = self._services.settings
        self._raise_descriptors(settings.clients_max)
        self._watch.start()
        loop = asyncio.get_running_loop()
        try:
            self._servers.append(await loop.create_server(self._client, settings.host, settings.port, backlog=BACKLOG))
            mask = os.umask(OWNER_ONLY_UMASK)
            try:
                settings.admin_socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _remove_stale(settings.admin_socket)
                self._servers.append(await loop.create_unix_server(self._sidecar, str(settings.admin_socket), backlog=BACKLOG))
            finally:
                os.umask(mask)
        except OSError as failed:
            await self.close()
            raise NodeError(f"shard {settings.name} can't listen: {failed}", shard=settings.name) from failed

    async def close(self) -> None:
        """Stop listening, let replies be sent, close all connections."""
        for server in self._servers:
            server.close()
        await self._watch.stop()
        await self._connections.close(CLOSE_WAIT_S)
        self._services.settings.admin_socket.unlink(missing_ok=True)

    def _client(self) -> Connection:
        return self._connection(admin=False)

    def _sidecar(self) -> Connection:
        return self._connection(admin=True)

    def _connection(self, *, admin: bool) -> Connection:
        return Connection(self._services, self._executor, self._doorkeeper, self._connections, next(self._ids), admin=admin)

    def _raise_descriptors(self, clients_max: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard != resource.RLIM_INFINITY and hard < clients_max + DESCRIPTORS_RESERVED:
            self._log.warning("file descriptors do not suffice for clients_max", limit=hard, clients_max=clients_max)


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left; the lock of the live database keeps two shards from one directory."""
    path.unlink(missing_ok=True)
