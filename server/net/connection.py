"""One client connection: bytes to the parser, commands to the executor, one write per run back.

Rules:
- Input waits where it is: while the peer does not read its replies, or a command is under way that takes several turns, or the loop owes
  a turn to others, nothing is read from the socket. What is parsed and not yet run is at most what one read brought.
- Replies keep their order; after QUIT or a protocol error nothing more is run, and the connection closes once its replies are sent.
- A shard with its maximum of clients answers new ones with an error and closes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter_ns
from typing import cast

from server.executor import Executor, Run
from server.latency import RUNS_PER_SAMPLE
from server.resp import texts
from server.resp.parser import Command, Limits, Parser
from server.resp.replies import error
from server.session import Services, Session

OUTPUT_HIGH_BYTES = 1 << 20  # unread replies of one client, beyond which its commands wait
OUTPUT_LOW_BYTES = 256 << 10


class Connections:
    """The open connections of a shard."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    def add(self, connection: Connection) -> None:
        """A connection came in."""
        self._open.add(connection)
        self._none_open.clear()

    def discard(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def close(self, wait_s: float) -> None:
        """Close all, after what is written to them is sent; those that take longer than `wait_s` are cut off."""
        for connection in tuple(self._open):
            connection.close()
        try:
            async with asyncio.timeout(wait_s):
                await self._none_open.wait()
        except TimeoutError:
            for connection in tuple(self._open):
                connection.abort()
            await self._none_open.wait()


class Connection(asyncio.Protocol):
    """Made by a listener for each client; `connections` holds those that are open."""

    def __init__(self, services: Services, executor: Executor, connections: Connections, session_id: int, *, admin: bool) -> None:
        self._services = services
        self._executor = executor
        self._connections = connections
        self._session_id = session_id
        self._admin = admin
        self._parser = Parser(Limits(bulk_bytes_max=services.settings.bulk_bytes_max))
        self._commands: list[Command] = []
        self._place = 0  # commands before it are done
        self._runs = 0
        self._reading = True
        self._output_full = False
        self._under_way: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._session: Session | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        stats = self._services.stats
        stats.connections_total += 1
        if len(self._services.sessions) >= self._services.settings.clients_max and not self._admin:
            stats.connections_refused += 1
            self._transport.write(error(texts.CLIENTS_MAX))
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=OUTPUT_HIGH_BYTES, low=OUTPUT_LOW_BYTES)
        socket = transport.get_extra_info("socket")
        self._session = Session(
            self._services,
            self._session_id,
            _address(transport.get_extra_info("peername")),
            _address(transport.get_extra_info("sockname")),
            admin=self._admin,
            descriptor=socket.fileno() if socket is not None else -1,
        )
        self._services.sessions[self._session_id] = self._session

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        session = self._session
        if session is None or session.closing:
            return
        session.last_ms = session.engine.clock()
        commands = self._parser.feed(data)
        if self._commands:
            self._commands += commands
        else:
            self._commands = commands
            self._run()

    def eof_received(self) -> bool:
        """The client sends no more: its last replies are sent, then the connection closes."""
        return False

    def pause_writing(self) -> None:
        """The client does not read its replies."""
        self._output_full = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._output_full = False
        self._run()  # even with no command left: reading stopped when the output was full

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- why it is gone changes nothing
        """The client is gone; a command that is under way runs to its end."""
        self._connections.discard(self)
        self._commands = []
        if self._session is not None:
            self._session.closing = True
            self._session.unpin()
            self._services.sessions.pop(self._session.id, None)

    def close(self) -> None:
        """Send what is written, and close."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _run(self) -> None:
        """Run what is parsed, as far as the limits go."""
        session = self._session
        if session is None or self._under_way is not None or self._output_full:
            return
        if self._commands:
            run = self._timed_run(session)
            self._services.stats.commands_total += run.next_place - self._place
            self._place = run.next_place
            if run.replies:
                self._transport.write(run.replies[0] if len(run.replies) == 1 else b"".join(run.replies))
            if run.waiting is not None:
                self._under_way = asyncio.get_running_loop().create_task(
                    self._finish(session, self._commands[self._place - 1], run.waiting)
                )
                self._read(wanted=False)
                return
            if self._place < len(self._commands) and not session.closing:
                self._read(wanted=False)
                if not self._output_full:  # else resume_writing goes on
                    asyncio.get_running_loop().call_soon(self._run)
                return
            self._commands = []
            self._place = 0
        self._after_all(session)

    def _timed_run(self, session: Session) -> Run:
        self._runs += 1
        if self._runs % RUNS_PER_SAMPLE or self._admin:
            return self._executor.run(session, self._commands, self._place)
        began_ns = perf_counter_ns()
        run = self._executor.run(session, self._commands, self._place)
        self._services.latencies.record(session.last_command, perf_counter_ns() - began_ns)
        return run

    def _after_all(self, session: Session) -> None:
        if session.closing or self._parser.error is not None:
            if not session.closing:
                session.closing = True
                self._transport.write(error(texts.protocol_error(self._parser.error or "")))
            self._transport.close()
            return
        self._read(wanted=not self._output_full)

    async def _finish(self, session: Session, words: Command, waiting: Awaitable[bytes]) -> None:
        try:
            reply = await waiting
        except Exception as failed:  # noqa: BLE001 -- as in Executor.run
            reply = self._executor.refusal(session, words, failed)
        self._under_way = None
        if not self._transport.is_closing():
            self._transport.write(reply)
            self._run()

    def _read(self, *, wanted: bool) -> None:
        if wanted is not self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _address(name: object) -> str:
    """`host:port`, or the path of a Unix socket with `:0` as Redis prints it."""
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    return f"{name.decode() if isinstance(name, bytes) else name or 'unixsocket'}:0"
