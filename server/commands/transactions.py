"""MULTI, EXEC, DISCARD, WATCH, UNWATCH.

Rules:
- Queued commands are checked when they come, as Redis does, and run by EXEC within one turn of the event loop: nobody sees half of them.
  Commands that otherwise take several turns are run to their end too.
- What they write is one batch: after a crash all of it is there, or nothing.
- A transaction's keys are of one slot, in cluster mode.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from inspect import iscoroutine

from pipeline.format.slots import key_slot
from server.commands.registry import NO_SLOT, Command, Family, Keys
from server.refusals import refusal
from server.resp import texts
from server.resp.replies import NULL_ARRAY, OK, ReplyError, array
from server.session import Session
from server.turns import ended
from server.writing import check_writable

FAMILY = Family("transactions", "transaction")


@dataclass(frozen=True, slots=True)
class Queued:
    """A command that waits for EXEC."""

    command: Command
    words: list[bytes]
    slot: int


@dataclass(slots=True)
class Queue:
    """What came since MULTI; `broken` if something of it was refused."""

    commands: list[Queued] = field(default_factory=list)
    broken: bool = False


@FAMILY.command("multi", 1, "noscript loading stale fast allow_busy")
def multi(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Queue the commands that follow."""
    if session.queue is not None:
        raise ReplyError(texts.NESTED_MULTI)
    session.queue = Queue()
    return OK


@FAMILY.command("discard", 1, "noscript loading stale fast allow_busy")
def discard(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Forget the queued commands and the watched keys."""
    if session.queue is None:
        raise ReplyError(texts.DISCARD_WITHOUT_MULTI)
    session.end_transaction()
    return OK


@FAMILY.command("watch", -2, "noscript loading stale fast allow_busy", Keys(1, -1, 1, "RO"))
def watch(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Let EXEC do nothing if one of these keys changes before it."""
    if session.queue is not None:
        raise ReplyError(texts.WATCH_WITHIN_MULTI)
    for key in words[1:]:
        session.services.watching.watch(session, key, key_slot(key))
    return OK


@FAMILY.command("unwatch", 1, "noscript loading stale fast allow_busy")
def unwatch(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Watch nothing any more."""
    session.services.watching.unwatch(session)
    return OK


@FAMILY.command("exec", 1, "noscript loading stale skip_slowlog")
def exec_(session: Session, _words: list[bytes], _slot: int) -> bytes | Awaitable[bytes]:
    """Run the queued commands, all at once."""
    queue = session.queue
    if queue is None:
        raise ReplyError(texts.EXEC_WITHOUT_MULTI)
    keys = [key for one in queue.commands for key in one.command.keys.of(one.words)]
    gate = session.services.gate
    flushes = any(one.command.writes and not one.command.first_key for one in queue.commands)
    if gate.busy and (flushes or any(key in gate.busy for key in keys)):
        return _exec_when_free(session, queue, None if flushes else keys)
    return _exec(session, queue)


async def _exec_when_free(session: Session, queue: Queue, keys: list[bytes] | None) -> bytes:
    gate = session.services.gate
    await (gate.all_free() if keys is None else gate.free(keys))
    if session.queue is not queue:  # the client is gone, and with it what it watched
        raise ReplyError(texts.EXEC_ABORTED)
    return _exec(session, queue)


def _exec(session: Session, queue: Queue) -> bytes:
    try:
        untouched = session.services.watching.as_it_was(session)
    finally:
        session.end_transaction()
    _check_slots(session, queue)
    _check_writes(session, queue)
    if queue.broken:
        raise ReplyError(texts.EXEC_ABORTED)
    if not untouched:
        return NULL_ARRAY[session.resp]
    return array(len(queue.commands)) + b"".join([_run(session, one) for one in queue.commands])


def _run(session: Session, one: Queued) -> bytes:
    one.command.calls += 1
    session.last_command = one.command.name  # errors name it
    try:
        reply = one.command.run(session, one.words, one.slot) if one.command.run else b""
        return ended(reply) if iscoroutine(reply) else reply  # type: ignore[return-value]  # no other awaitable is queued
    except Exception as failed:  # noqa: BLE001 -- the others run all the same, as in Redis
        refused = refusal(session, one.words, failed)
        session.services.commands.failed_with(one.words, refused)
        return refused


def _check_slots(session: Session, queue: Queue) -> None:
    cluster = session.services.cluster
    slots = {one.slot for one in queue.commands if one.slot != NO_SLOT}
    if len(slots) > 1 and cluster.enabled:
        raise ReplyError(texts.CROSS_SLOT)
    for slot in slots:
        if session.redirected and not cluster.owned[slot] and not (session.readonly and cluster.copied[slot]):
            raise ReplyError(cluster.redirection(slot))


def _check_writes(session: Session, queue: Queue) -> None:
    """A dataset may have been registered, or a replica have come, since the commands were queued."""
    for one in queue.commands:
        if one.command.writes:
            try:
                check_writable(session.services, one.command.keys.of(one.words))
            except ReplyError as refused:
                raise ReplyError(texts.exec_refused(refused.text)) from None
