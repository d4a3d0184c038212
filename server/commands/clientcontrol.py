"""CLIENT KILL, PAUSE, UNPAUSE, REPLY, UNBLOCK: what ends connections, or holds them.

A killed connection is closed without the replies that it has not read, as in Redis; the caller's own closes after its reply.
The admin socket's connections are not killed by type or by exclusion: the node's sidecar would lose what it pinned.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from server.commands.arguments import INT64_MAX, integer
from server.commands.client import CLIENT_TYPES
from server.commands.connection import DEFAULT_USER
from server.commands.registry import Family
from server.resp import texts
from server.resp.replies import OK, ReplyError
from server.resp.replies import integer as integer_reply
from server.session import Session

FAMILY = Family("connection", "connection")

SILENT_FOR_EVER = -1
CONTROL_WORDS_MAX = 4

_POSITIVE = re.compile(rb"[1-9][0-9]{0,18}")
_BASIC = "noscript loading stale"
_ADMIN = "admin noscript loading stale"


@FAMILY.command("client|kill", -3, _ADMIN)
def kill(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Close the connection of an address, or all that fit the options."""
    sessions = session.services.sessions.values()
    if len(words) == 3:
        found = [one for one in sessions if one.peer.encode() == words[2]]
        if not found:
            raise ReplyError(texts.NO_SUCH_CLIENT)
        _kill(session, found)
        return OK
    if len(words) % 2:
        raise ReplyError(texts.SYNTAX)
    wanted, skip_me = _options(words[2::2], words[3::2])
    found = [one for one in sessions if _fits(one, wanted) and not (skip_me and one is session)]
    _kill(session, found)
    return integer_reply(len(found))


def _options(names: list[bytes], values: list[bytes]) -> tuple[dict[bytes, bytes], bool]:
    wanted = {}
    for name, value in zip((one.lower() for one in names), values, strict=True):
        _check_option(name, value)
        wanted[name] = value
    return wanted, wanted.get(b"skipme", b"yes").lower() == b"yes"


def _check_option(name: bytes, value: bytes) -> None:
    match name:
        case b"id" if not _POSITIVE.fullmatch(value):
            raise ReplyError(texts.KILL_ID)
        case b"type" if value.lower() not in CLIENT_TYPES:
            raise ReplyError(texts.client_type(value))
        case b"user" if value != DEFAULT_USER:
            raise ReplyError(texts.no_such_user(value))
        case b"skipme" if value.lower() not in (b"yes", b"no"):
            raise ReplyError(texts.SYNTAX)
        case b"id" | b"type" | b"user" | b"skipme" | b"addr" | b"laddr":
            return
        case _:
            raise ReplyError(texts.SYNTAX)


def _fits(session: Session, wanted: dict[bytes, bytes]) -> bool:
    if session.admin and not wanted.keys() & {b"id", b"addr", b"laddr"}:
        return False
    return (
        wanted.get(b"id") in (None, b"%d" % session.id)
        and wanted.get(b"addr") in (None, session.peer.encode())
        and wanted.get(b"laddr") in (None, session.local.encode())
        and wanted.get(b"type", b"normal").lower() == b"normal"
    )


def _kill(caller: Session, sessions: Iterable[Session]) -> None:
    for one in sessions:
        if one is caller:
            one.closing = True
        elif one.client is not None:
            one.client.abort()


@FAMILY.command("client|pause", -3, _ADMIN)
def pause(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Hold all commands, or those that write, for so many milliseconds."""
    if len(words) > CONTROL_WORDS_MAX:
        raise ReplyError(texts.subcommand_usage("CLIENT", words[1]))
    everything = True
    if len(words) == CONTROL_WORDS_MAX:
        mode = words[3].lower()
        if mode not in (b"write", b"all"):
            raise ReplyError(texts.PAUSE_MODE)
        everything = mode == b"all"
    ms = integer(words[2], texts.TIMEOUT_NOT_INTEGER)
    if ms < 0:
        raise ReplyError(texts.TIMEOUT_NEGATIVE)
    if session.services.engine.clock() + ms > INT64_MAX:
        raise ReplyError(texts.TIMEOUT_NOT_INTEGER)
    session.services.pause.begin(ms, everything=everything)
    return OK


@FAMILY.command("client|unpause", 2, _ADMIN)
def unpause(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Let held commands go on."""
    session.services.pause.end()
    return OK


@FAMILY.command("client|reply", 3, _BASIC)
async def reply(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Whether this connection gets replies: all, none, or none to the next command."""
    mode = words[2].lower()
    if mode not in (b"on", b"off", b"skip"):
        raise ReplyError(texts.SYNTAX)
    await asyncio.sleep(0)  # a turn of its own: the replies before it are sent by then, and this one ends its run
    if mode == b"on":
        session.silent = 0
    elif mode == b"off":
        session.silent = SILENT_FOR_EVER
    elif session.silent >= 0:
        session.silent = 2  # its own reply, and the next one
    return OK


@FAMILY.command("client|unblock", -3, _ADMIN)
def unblock(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """0: no command of this server blocks its client."""
    if len(words) > CONTROL_WORDS_MAX:
        raise ReplyError(texts.subcommand_usage("CLIENT", words[1]))
    if len(words) == CONTROL_WORDS_MAX and words[3].lower() not in (b"timeout", b"error"):
        raise ReplyError(texts.UNBLOCK_REASON)
    integer(words[2])
    return integer_reply(0)
