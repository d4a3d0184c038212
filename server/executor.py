"""Runs the commands of one received buffer, in order, and gathers their replies.

Rules:
- Checks come in Redis' order: the command exists, its arity, where its keys live (CLUSTERDOWN, CROSSSLOT, MOVED), then this system's own
  rule that keys of a dataset are not written by clients, then the command itself.
- Whatever a command raises becomes an error reply, and the connection goes on; what is not a ReplyError is logged.
- It takes the commands of a buffer as a list, so that reads can be fetched ahead and writes share a batch.
- One run ends at a limit of commands or reply bytes, so that one client can neither hold the loop nor fill the memory.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from pipeline.format.admin import encode_refusal
from pipeline.format.errors import RedkvError
from pipeline.format.slots import key_slot
from server.cluster.topology import ClusterView
from server.commands.registry import NO_SLOT, Command
from server.resp import texts
from server.resp.parser import Command as Words
from server.resp.replies import ReplyError, error
from server.session import Session
from server.storage.datasets import DatasetIndex

COMMANDS_PER_RUN_MAX = 512  # about 5 ms of quick commands between two turns of the loop
REPLY_BYTES_PER_RUN_MAX = 256 << 10  # handed to the transport at once; beyond it, the peer's pace decides


@dataclass(slots=True)
class Run:
    """What one run gave: replies to join, where to go on, and a reply that is still to come."""

    replies: list[bytes]
    next_place: int
    waiting: Awaitable[bytes] | None = None


class Executor:
    """The dispatcher of one shard, for all its connections."""

    def __init__(self, table: dict[bytes, Command], cluster: ClusterView, index: DatasetIndex) -> None:
        self._table = table
        self._cluster = cluster
        self._owned = cluster.owned  # the same bytes for ever: the view changes them in place
        self._index = index
        self._quick = table | {name.upper(): command for name, command in table.items()}  # the spellings that clients send
        self._log = structlog.get_logger("server.executor")

    def run(self, session: Session, commands: list[Words], place: int) -> Run:
        """Run commands from `place` on, as far as the limits of one run go."""
        replies: list[bytes] = []
        reply_bytes = 0
        stop = min(len(commands), place + COMMANDS_PER_RUN_MAX)
        call = self._call
        while place < stop:
            words = commands[place]
            place += 1
            try:
                reply = call(session, words)
            except ReplyError as refused:
                reply = error(refused.text)
            except Exception as failed:  # noqa: BLE001 -- no command may end a connection, let alone the shard
                reply = self.refusal(session, words, failed)
            if not isinstance(reply, bytes):
                return Run(replies, place, reply)
            replies.append(reply)
            reply_bytes += len(reply)
            if reply_bytes >= REPLY_BYTES_PER_RUN_MAX or session.closing:
                break
        return Run(replies, place)

    def refusal(self, session: Session, words: Words, failed: Exception) -> bytes:
        """The reply for a failure that is not a ReplyError."""
        if isinstance(failed, ReplyError):
            return error(failed.text)
        name = words[0].decode(errors="backslashreplace").lower()
        if session.admin and isinstance(failed, RedkvError):
            self._log.warning("refused", command=name, error=type(failed).__name__, message=failed.message)
            return error(encode_refusal(failed))
        self._log.error("command failed", command=name, client=session.peer, exc_info=failed)
        return error(f"ERR {failed.message}" if isinstance(failed, RedkvError) else texts.INTERNAL)

    def _call(self, session: Session, words: Words) -> bytes | Awaitable[bytes]:
        command = self._quick.get(words[0])
        if command is None or command.subcommands or command.admin_only:
            command = self._find(session, words)
        if not command.least <= len(words) <= command.most:
            raise ReplyError(texts.wrong_arity(command.name))
        session.last_command = command.name
        slot = NO_SLOT
        if command.first_key:
            slot = key_slot(words[command.first_key])
            if not command.single_key:
                self._check_slots(session, command, words, slot)
            if not self._owned[slot] and session.redirected:
                return self._cluster.redirection(slot)
            if command.writes and self._index.prefixes:
                self._check_writable(command, words)
        if command.run is None:
            raise ReplyError(texts.wrong_arity(command.name))
        return command.run(session, words, slot)

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

    def _check_slots(self, session: Session, command: Command, words: Words, slot: int) -> None:
        if session.redirected and self._cluster.owners[slot] is None:
            raise ReplyError(texts.SLOT_UNSERVED)
        if any(key_slot(key) != slot for key in command.keys.of(words)):
            raise ReplyError(texts.CROSS_SLOT)

    def _check_writable(self, command: Command, words: Words) -> None:
        for key in command.keys.of(words):
            owner = self._index.owner(key)
            if owner is not None:
                raise ReplyError(texts.read_only(owner.pointer.dataset, owner.pointer.prefix))
