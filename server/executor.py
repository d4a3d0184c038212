"""Runs the commands of one received buffer, in order, and gathers their replies.

Rules:
- Checks come in Redis' order: the command exists, its arity, where its keys live (CLUSTERDOWN, CROSSSLOT, MOVED), then this system's own
  rule that clients write neither keys of a dataset nor slots that have replicas, then the command itself.
- A replica answers a READONLY connection from versions alone. Live keys, and a dataset that it has yet to load, are its primary's.
- Whatever a command raises becomes an error reply, and the connection goes on; what is not a ReplyError is logged.
- A buffer of one reading command goes past all that (reads.py, which looks at the same things; what is added to `_call` is added there).
- What the commands of any other will read is fetched by one MultiGet before the first one runs; what they wrote is written by one batch
  after the last one, before any reply leaves. If that fails, the writing commands' replies say so.
- How many commands a run takes, and so fetches ahead, follows what their replies weigh: twice as many as fitted, when few did. Values that
  are fetched and then find no room in the run would be fetched again by the next one.
- One run ends at a limit of commands, reply bytes or bytes to write, so that one client can neither hold the loop nor fill the memory.
- A command whose keys another one is changing over several turns waits for it (gate.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable
from dataclasses import dataclass
from inspect import iscoroutine

import structlog

from pipeline.format.errors import NodeError
from pipeline.format.slots import key_slot
from server.cluster.topology import ClusterView
from server.commands.registry import NO_SLOT, Command
from server.commands.transactions import Queued
from server.reads import REPLY_BYTES_PER_RUN_MAX, Reads
from server.refusals import refusal
from server.resp import texts
from server.resp.parser import Command as Words
from server.resp.replies import ReplyError, error, simple
from server.session import Services, Session
from server.storage.live import PENDING_BYTES_MAX
from server.turns import begun
from server.writing import check_writable

COMMANDS_PER_RUN_MIN = 2
COMMANDS_PER_RUN_MAX = 512  # about 5 ms of quick commands between two turns of the loop

_NEVER_QUEUED = frozenset({"exec", "discard", "multi", "watch", "quit", "reset"})
_QUEUED = simple("QUEUED")


@dataclass(slots=True)
class Run:
    """What one run gave: replies to join, where to go on, a reply that is still to come, and whether something is to be written before any
    of them leaves.
    """

    replies: list[bytes]
    next_place: int
    waiting: Awaitable[bytes] | None = None
    wrote: bool = False


class Executor:
    """The dispatcher of one shard, for all its connections."""

    def __init__(self, table: dict[bytes, Command], services: Services) -> None:
        self._table = table
        self._services = services
        self._cluster: ClusterView = services.cluster
        self._owned = services.cluster.owned  # the same bytes for ever: the view changes them in place
        self._prefixes = services.engine.index.prefixes  # and so the index
        self._index = services.engine.index
        self._engine = services.engine
        self._live = services.engine.live
        self._wal = services.wal
        self._gate = services.gate
        self._commands = services.commands
        self._quick = table | {name.upper(): command for name, command in table.items()}  # the spellings that clients send
        self._reads = Reads(self._quick, services)
        self._log = structlog.get_logger("server.executor")

    def run_one(self, session: Session, words: Words) -> bytes | Awaitable[bytes]:
        """Run one command that came alone; what `run` does for many, without what many need."""
        try:
            return self._call(session, words)
        except Exception as failed:  # noqa: BLE001 -- as in `run`
            return self._failed(session, words, failed)

    def run(self, session: Session, commands: list[Words], place: int) -> Run:
        """Run commands from `place` on, as far as the limits of one run go."""
        replies: list[bytes] = []
        waiting = None
        reply_bytes = 0
        first = place
        stop = min(len(commands), place + session.run_commands_max)
        if stop - place > 1:
            reply_bytes = self._reads.answer(session, commands[place:stop], replies)
            place += len(replies)
            if stop - place > 1 and reply_bytes < REPLY_BYTES_PER_RUN_MAX:
                self._fetch_ahead(session, commands[place:stop])
        call, live = self._call, self._live
        while place < stop and reply_bytes < REPLY_BYTES_PER_RUN_MAX:
            words = commands[place]
            place += 1
            try:
                reply = call(session, words)
            except Exception as failed:  # noqa: BLE001 -- no command may end a connection, let alone the shard
                reply = self._failed(session, words, failed)
            if not isinstance(reply, bytes):
                waiting = reply
                break
            replies.append(reply)
            reply_bytes += len(reply)
            if live.pending_bytes >= PENDING_BYTES_MAX or session.closing:
                break
        self._engine.forget_ahead()
        if reply_bytes >= REPLY_BYTES_PER_RUN_MAX:
            session.run_commands_max = max(COMMANDS_PER_RUN_MIN, 2 * (place - first))
        elif place - first == session.run_commands_max < COMMANDS_PER_RUN_MAX:
            session.run_commands_max = min(COMMANDS_PER_RUN_MAX, 2 * session.run_commands_max)
        return Run(replies, place, waiting, live.pending_bytes > 0)

    def _failed(self, session: Session, words: Words, failed: Exception) -> bytes:
        reply = error(failed.text) if isinstance(failed, ReplyError) else refusal(session, words, failed)
        self._commands.failed_with(words, reply)
        self._spoil(session, words)
        return reply

    def unwritten(self, commands: list[Words], replies: list[bytes], failed: NodeError) -> list[bytes]:
        """The replies of commands whose writes are lost: an error for each that writes, but for those that are queued for later."""
        self._engine.dataset_changed(None)  # what was read since may stand among the hot values
        refused = error(texts.write_failed(failed.message))
        return [refused if reply != _QUEUED and self._may_write(words) else reply for words, reply in zip(commands, replies, strict=False)]

    def _may_write(self, words: Words) -> bool:
        command = self._table.get(words[0].lower())
        return command is not None and (command.writes or command.name == "exec")

    async def finish(self, session: Session, words: Words, waiting: Awaitable[bytes]) -> bytes:
        """The reply of a command that takes several turns; what it wrote is written, and on the disk if replies wait for that."""
        try:
            reply = await waiting
        except Exception as failed:  # noqa: BLE001 -- as in `run`
            if self._live.pending_bytes:  # of its last turn, half of a change perhaps; others have committed theirs
                self._live.discard()
                self._engine.dataset_changed(None)
            return refusal(session, words, failed)
        if not self._live.pending_bytes:
            return reply
        try:
            self._live.commit()
            if self._wal.before_replies:
                await self._wal.synced()
        except NodeError as failed:
            self._log.error("the writes of a command of several turns failed", client=session.peer, error=failed.message)
            return self.unwritten([words], [reply], failed)[0]
        return reply

    def _fetch_ahead(self, session: Session, commands: list[Words]) -> None:
        quick = self._quick
        keys = [words[1] for words in commands if (command := quick.get(words[0])) is not None and command.reads_key and len(words) > 1]
        if len(keys) > 1:
            session.engine.fetch_ahead(keys)

    def _call(self, session: Session, words: Words) -> bytes | Awaitable[bytes]:
        command = self._quick.get(words[0])
        if command is None or command.subcommands or command.admin_only:
            command = self._find(session, words)
        if not command.least <= len(words) <= command.most:
            raise self._wrong_arity(session, command)
        session.last_command = command.name
        slot = NO_SLOT
        if command.first_key:
            slot = key_slot(words[command.first_key])
            if not (self._owned[slot] and (command.looks_at_one_key or (command.single_key and self._writable(words[1])))):
                self._check_keys(session, command, words, slot)
        if session.queue is not None or self._gate.busy:
            later = self._queued(session, command, words, slot) if session.queue is not None else self._waiting(session, command, words)
            if later is not None:
                return later
        if command.run is None:
            raise ReplyError(texts.wrong_arity(command.name))
        command.calls += 1
        reply = command.run(session, words, slot)
        if isinstance(reply, bytes) or command.admin_only or not iscoroutine(reply):
            return reply
        return begun(reply)

    @staticmethod
    def _wrong_arity(session: Session, command: Command) -> ReplyError:
        text = texts.wrong_arity(command.name)
        if command.name != "exec":
            return ReplyError(text)
        session.end_transaction()
        return ReplyError(texts.exec_refused(text))

    def _queued(self, session: Session, command: Command, words: Words, slot: int) -> bytes | None:
        """The reply to a command that waits for EXEC; None if it does not."""
        queue = session.queue
        if queue is None or command.name in _NEVER_QUEUED:
            return None
        if command.admin_only:
            raise ReplyError(texts.NOT_IN_TRANSACTION)
        if command.run is None:
            raise ReplyError(texts.wrong_arity(command.name))
        if not (queue.broken or session.spoiled):  # neither will run
            queue.commands.append(Queued(command, words, slot))
        return _QUEUED

    def _waiting(self, session: Session, command: Command, words: Words) -> Awaitable[bytes] | None:
        """The reply to a command whose keys another one is changing; None if it need not wait."""
        if not any(key in self._gate.busy for key in command.keys.of(words)):
            return None
        return self._when_free(session, command, words)

    def _spoil(self, session: Session, words: Words) -> None:
        """What was refused before it ran makes a transaction fail; what runs within one, and is refused by itself, does not."""
        if session.queue is None:
            return
        command = self._table.get(words[0].lower())
        if command is None or command.name not in _NEVER_QUEUED or not command.least <= len(words) <= command.most:
            session.queue.broken = True
        elif command.first_key:
            try:
                self._check_keys(session, command, words, key_slot(words[command.first_key]))
            except ReplyError:
                session.queue.broken = True

    async def _when_free(self, session: Session, command: Command, words: Words) -> bytes:
        await self._gate.free(command.keys.of(words))
        reply = self._call(session, words)
        return reply if isinstance(reply, bytes) else await reply

    def _find(self, session: Session, words: Words) -> Command:
        command = self._table.get(words[0].lower())
        if command is None or (command.admin_only and not session.admin):
            raise ReplyError(texts.unknown_command(words))
        if command.subcommands and len(words) > 1:
            found = command.subcommands.get(words[1].lower())
            if found is None:
                raise ReplyError(texts.unknown_subcommand(words))
            return found
        return command

    def _check_keys(self, session: Session, command: Command, words: Words, slot: int) -> None:
        if not command.single_key and self._cluster.enabled:
            if session.redirected and self._cluster.owners[slot] is None:
                raise ReplyError(texts.SLOT_UNSERVED)
            if any(key_slot(key) != slot for key in command.keys.of(words)):
                raise ReplyError(texts.CROSS_SLOT)
        if not self._owned[slot] and session.redirected and not (session.readonly and self._has_copy(command, words, slot)):
            raise ReplyError(self._cluster.redirection(slot))
        if command.writes:
            check_writable(self._services, command.keys.of(words) if self._prefixes else ())

    def _writable(self, key: bytes) -> bool:
        """Whether clients may write a key; why not, says `check_writable`."""
        prefixes = self._prefixes
        place = bisect_right(prefixes, key) - 1
        if place >= 0 and key.startswith(prefixes[place]):
            return False
        return self._wal.failure is None and not self._cluster.is_replicated

    def _has_copy(self, command: Command, words: Words, slot: int) -> bool:
        if command.writes or not self._cluster.copied[slot]:
            return False
        owners = [self._index.owner(key) for key in command.keys.of(words)]
        return all(owner is not None and owner.serves(slot) for owner in owners)
