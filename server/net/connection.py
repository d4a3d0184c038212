"""One client connection: bytes to the parser, commands to the executor, one write per run back.

Rules:
- Input waits where it is: while the peer does not read its replies, or a command is under way that takes several turns, or the loop owes
  a turn to others, nothing is read from the socket. What is parsed and not yet run is at most what one read brought.
- Replies keep their order; after QUIT or a protocol error nothing more is run, and the connection closes once its replies are sent.
- A connection that has not authenticated runs one command at a time, by an executor that knows no others than those that let it in.
- Unread replies beyond a mark make its commands wait, and watch.py look at it.
- A shard with its maximum of clients answers new ones with an error and closes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter_ns
from typing import cast

from pipeline.format.errors import NodeError
from server.executor import Executor, Run
from server.latency import RUNS_PER_SAMPLE
from server.net.keepalive import keep_alive
from server.net.watch import Watch
from server.observe.runs import RunObserver
from server.resp import texts
from server.resp.parser import Command, Parser
from server.resp.replies import error
from server.session import Services, Session

OUTPUT_HIGH_BYTES = 1 << 20  # unread replies of one client, beyond which its commands wait
OUTPUT_LOW_BYTES = 256 << 10


class Connections:
    """The open connections of a shard."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
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

    def __init__(
        self, services: Services, executor: Executor, doorkeeper: Executor, connections: Connections, session_id: int, *, admin: bool
    ) -> None:
        self._services = services
        self._stats = services.stats
        self._clock = services.engine.clock
        self._executor = executor
        self._doorkeeper = doorkeeper
        self._connections = connections
        self._session_id = session_id
        self._admin = admin
        self._guarded = bool(services.config.requirepass) and not admin  # more commands may wait in the parser
        self._parser = Parser(services.config.limits, guarded=self._guarded)
        self._commands: list[Command] = []
        self._place = 0  # commands before it are done
        self._config = services.config
        self._live = services.engine.live
        self._turn = services.turn
        self._wal = services.wal
        self._observer = RunObserver(services)
        self._runs = 0
        self._timed_ns = 0  # when the run began whose answer will be timed; 0: none
        self._reading = True
        self._output_full = False
        self._under_way: asyncio.Task[None] | None = None
        self._held: tuple[list[Command], list[bytes]] | None = None  # what waits for the end of this turn
        self._transport: asyncio.Transport
        self.session: Session | None = None
        self.stalled_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        stats = self._stats
        stats.connections_total += 1
        if len(self._services.sessions) >= self._services.config.maxclients and not self._admin:
            stats.connections_refused += 1
            self._transport.write(error(texts.CLIENTS_MAX))
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=OUTPUT_HIGH_BYTES, low=OUTPUT_LOW_BYTES)
        socket = transport.get_extra_info("socket")
        self.session = Session(
            self._services,
            self._session_id,
            _address(transport.get_extra_info("peername")),
            _address(transport.get_extra_info("sockname")),
            admin=self._admin,
            descriptor=socket.fileno() if socket is not None else -1,
        )
        self.session.client = self
        self._services.sessions[self._session_id] = self.session
        if socket is not None and not self._admin and self._services.config.tcp_keepalive_s:
            keep_alive(socket, self._services.config.tcp_keepalive_s)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        session = self.session
        if session is None or session.closing:
            return
        session.last_ms = self._clock()
        self._stats.input_bytes += len(data)
        commands = self._parser.feed(data)
        if self._commands:
            self._commands += commands
        elif len(commands) == 1 and self._undisturbed(session):
            self._run_one(session, commands)
        else:
            self._commands = commands
            self._run()

    def _undisturbed(self, session: Session) -> bool:
        """Whether a command can simply be run and answered: nothing is under way, held back, or looked at more closely."""
        return not (
            self._admin
            or self._guarded
            or session.locked
            or self._output_full
            or self._held is not None
            or self._under_way is not None
            or self._parser.error is not None
            or self._services.pause.active
        )

    def _run_one(self, session: Session, commands: list[Command]) -> None:
        """The short way of a command that came alone: its reply leaves at the end of this turn."""
        began_ns = perf_counter_ns()
        reply = self._executor.run_one(session, commands[0])
        took_ns = perf_counter_ns() - began_ns
        self._stats.commands_total += 1
        self._runs += 1
        if reply.__class__ is bytes and not session.closing and not session.silent:
            if took_ns >= self._config.slow_ns or not self._runs % RUNS_PER_SAMPLE:
                self._observe(session, commands, None, began_ns, took_ns)
            if not self._live.pending_bytes:
                self._held = commands, [reply]
                self._turn.reply(self)
                return
            if not self._turn.under_way:
                self._held = commands, [reply]
                self._turn.hold(self)
                return
            run = Run([reply], 1, None, wrote=True)
        else:
            wrote = self._live.pending_bytes > 0
            run = Run([reply], 1, None, wrote) if isinstance(reply, bytes) else Run([], 1, reply, wrote)
            if took_ns >= self._config.slow_ns or not self._runs % RUNS_PER_SAMPLE or run.waiting is not None:
                self._observe(session, commands, run.waiting, began_ns, took_ns)
        self._commands, self._place = commands, 1
        self._answer(session, commands, run)

    def eof_received(self) -> bool:
        """The client sends no more: its last replies are sent, then the connection closes."""
        return False

    def pause_writing(self) -> None:
        """The client does not read its replies."""
        self._output_full = True
        self._connections.watch.stalled(self)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._output_full = False
        self._connections.watch.moving(self)
        self._run()  # even with no command left: reading stopped when the output was full

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- why it is gone changes nothing
        """The client is gone; a command that is under way runs to its end."""
        self._connections.discard(self)
        self._connections.watch.moving(self)
        self._services.pause.forget(self)
        self._commands = []
        if self.session is not None:
            self.session.closing = True
            self.session.unpin()
            self.session.end_transaction()
            self._services.sessions.pop(self.session.id, None)

    def close(self) -> None:
        """Send what is written, and close."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def guard(self, *, on: bool) -> None:
        """Whether the client has still to authenticate."""
        if on:
            self._guarded = True
        self._parser.guard(on=on)

    def unsent_bytes(self) -> int:
        """Replies that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def unparsed_bytes(self) -> int:
        """What is received of an unfinished command."""
        return self._parser.pending_bytes

    def _run(self) -> None:
        """Run what is parsed, as far as the limits go."""
        session = self.session
        if session is None or self._under_way is not None or self._held is not None or self._output_full:
            return
        if self._commands:
            stop = len(self._commands)
            if self._services.pause.active and not self._admin:
                stop = self._services.pause.may_run(self._commands, self._place)
                if stop == self._place:
                    self._read(wanted=False)
                    self._services.pause.wait(self, self._run)
                    return
            run = self._observed_run(session, stop)
            first, self._place = self._place, run.next_place
            self._stats.commands_total += run.next_place - first
            self._answer(session, self._commands[first : self._place], run)
            return
        if self._guarded and self._take_more(session):
            return
        self._after_all(session)

    def _take_more(self, session: Session) -> bool:
        """Let the commands behind one that may have authenticated have their turn; whether there are any."""
        self._commands = self._parser.more()
        self._guarded = session.locked
        if not self._commands or session.closing:
            return False
        self._read(wanted=False)
        asyncio.get_running_loop().call_soon(self._run)
        return True

    def _send(self, session: Session, replies: list[bytes]) -> None:
        if session.silent:
            replies = self._audible(session, replies)
        output = replies[0] if len(replies) == 1 else b"".join(replies)
        self._stats.output_bytes += len(output)
        self._transport.write(output)

    @staticmethod
    def _audible(session: Session, replies: list[bytes]) -> list[bytes]:
        """CLIENT REPLY SKIP and OFF."""
        if session.silent < 0:
            return [b""]
        skipped = min(session.silent, len(replies))
        session.silent -= skipped
        return replies[skipped:] or [b""]

    def _observed_run(self, session: Session, stop: int) -> Run:
        """Run; the clock is read twice for each run, for the slow log."""
        executor, commands, place = self._executor, self._commands, self._place
        if session.locked:
            if self._services.config.requirepass:
                executor, stop = self._doorkeeper, place + 1
            else:
                session.authenticated()
        if stop < len(commands):
            commands = commands[:stop]
        began_ns = perf_counter_ns()
        run = executor.run(session, commands, place)
        took_ns = perf_counter_ns() - began_ns
        self._runs += 1
        if took_ns >= self._config.slow_ns or not self._runs % RUNS_PER_SAMPLE or run.waiting is not None:
            self._observe(session, commands[place : run.next_place], run.waiting, began_ns, took_ns)
        return run

    def _observe(self, session: Session, commands: list[Command], waiting: Awaitable[bytes] | None, began_ns: int, took_ns: int) -> None:
        if self._admin or not commands:
            return
        if waiting is not None:
            self._observer.begun(began_ns)
        elif took_ns >= self._config.slow_ns:
            self._observer.slow(session, commands, took_ns)
        if not self._runs % RUNS_PER_SAMPLE:
            self._observer.sampled(commands, took_ns)
            self._timed_ns = began_ns

    def _answered(self, session: Session) -> None:
        """The replies of a run that is timed are on their way, or wait for what is not in its time."""
        self._observer.answered(session, self._timed_ns)
        self._timed_ns = 0

    def _after_all(self, session: Session) -> None:
        if session.closing or self._parser.error is not None:
            if not session.closing:
                session.closing = True
                self._stats.protocol_errors += 1
                self._services.warnings.warning("protocol error", client=session.peer, error=self._parser.error)
                self._transport.write(error(texts.protocol_error(self._parser.error or "")))
            self._transport.close()
            return
        self._read(wanted=not self._output_full)

    def _answer(self, session: Session, commands: list[Command], run: Run) -> None:
        """Send a run's replies, now or when they may leave, and go on behind it."""
        if run.wrote or run.waiting is not None:
            self._hold(session, commands, run)
        else:
            self._go_on(session, commands, run, unsynced=False)

    def _hold(self, session: Session, commands: list[Command], run: Run) -> None:
        """Let the replies of a run wait for the writes of this turn, and for what takes several turns."""
        turn = self._turn
        if run.wrote and run.waiting is None and not turn.under_way:
            self._held = commands, run.replies
            turn.hold(self)
            return
        failed = turn.end() if run.wrote else None
        if failed is not None:
            run.replies[:] = self._executor.unwritten(commands, run.replies, failed)
        self._go_on(session, commands, run, unsynced=run.wrote and failed is None and self._wal.before_replies)

    def answer(self) -> None:
        """The turn ends: send the reply that waited for nothing else, and go on with what came meanwhile."""
        session, held = self.session, self._held
        self._held = None
        if session is None or held is None or session.closing:
            return
        [reply] = held[1]
        self._stats.output_bytes += len(reply)
        self._transport.write(reply)
        if self._timed_ns:
            self._answered(session)
        if self._commands or self._parser.error is not None:
            self._run()

    def release(self, failed: NodeError | None) -> None:
        """What this connection was held for is written, or lost."""
        if failed is None and not self._commands and not self._wal.before_replies:  # a command that came alone
            self.answer()
            return
        session, held = self.session, self._held
        self._held = None
        if session is None or held is None:
            return
        commands, replies = held
        if failed is not None:
            replies = self._executor.unwritten(commands, replies, failed)
        elif self._reading and self._place == len(self._commands) and self._undisturbed(session) and not self._wal.before_replies:
            self._commands, self._place = [], 0
            if not session.closing:
                self._send(session, replies)
                if self._timed_ns:
                    self._answered(session)
                return
        run = Run(replies, self._place)
        self._go_on(session, commands, run, unsynced=failed is None and self._wal.before_replies)

    def _go_on(self, session: Session, commands: list[Command], run: Run, *, unsynced: bool) -> None:
        """Send what can be sent; the rest, and all that follows, comes when it is done."""
        if run.replies and not unsynced and not self._transport.is_closing():
            self._send(session, run.replies)
        if self._timed_ns:
            self._answered(session)
        if unsynced or run.waiting is not None:
            self._turn.under_way += run.waiting is not None
            self._under_way = asyncio.get_running_loop().create_task(self._finish(session, commands, run, unsynced=unsynced))
            self._read(wanted=False)
        elif self._place < len(self._commands) and not session.closing:
            self._read(wanted=False)
            asyncio.get_running_loop().call_soon(self._run)
        else:
            self._commands = []
            self._place = 0
            self._run()

    async def _finish(self, session: Session, commands: list[Command], run: Run, *, unsynced: bool) -> None:
        """Send what could not be sent in the turn of its run: replies that wait for the disk, then one that takes several turns."""
        replies = []
        try:
            if unsynced:
                replies = run.replies
                try:
                    await self._wal.synced()
                except NodeError as failed:
                    replies = self._executor.unwritten(commands, run.replies, failed)
            if run.waiting is not None:
                replies.append(await self._executor.finish(session, commands[-1], run.waiting))
                if not self._admin:
                    self._observer.ended(session, commands[-1], replies[-1])
        finally:
            self._turn.under_way -= run.waiting is not None
        self._under_way = None
        if not self._transport.is_closing():
            self._send(session, replies)
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
