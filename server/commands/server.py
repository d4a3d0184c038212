"""The server itself: TIME, ROLE, WAIT, SHUTDOWN, and the saving commands, which this server has no need of."""

from __future__ import annotations

import time

import structlog

from server.cluster.roles import role as role_of
from server.commands.arguments import integer
from server.commands.registry import Family
from server.resp import texts
from server.resp.replies import ReplyError, encode
from server.resp.replies import integer as integer_reply
from server.session import Session

FAMILY = Family("server", "")

US_PER_S = 1_000_000
NS_PER_US = 1_000
MS_PER_S = 1_000

_SAVES = "admin noscript no_async_loading"
_SHUTDOWN_OPTIONS = frozenset({b"nosave", b"save", b"now", b"force", b"abort"})

_log = structlog.get_logger("server.shutdown")


@FAMILY.command("time", 1, "loading stale fast", tips="nondeterministic_output")
def time_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Seconds since the epoch, and microseconds within the second."""
    seconds, microseconds = divmod(time.time_ns() // NS_PER_US, US_PER_S)
    return encode([b"%d" % seconds, b"%d" % microseconds], session.resp)


@FAMILY.command("role", 1, "noscript loading stale fast", categories="admin dangerous")
def role(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Whether this shard is a primary or a replica, and of whom."""
    return encode(role_of(session.services.cluster), session.resp)


@FAMILY.command("wait", 3, "noscript", categories="connection", tips="request_policy:all_shards response_policy:agg_min")
def wait(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """0 at once: there are no replicas that could acknowledge, now or later."""
    integer(words[1])
    if integer(words[2], texts.TIMEOUT_NOT_INTEGER) < 0:
        raise ReplyError(texts.TIMEOUT_NEGATIVE)
    return integer_reply(0)


@FAMILY.command("lastsave", 1, "loading stale fast", categories="admin dangerous", tips="nondeterministic_output")
def lastsave(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """When the shard started, as Redis says before its first save."""
    return integer_reply(session.services.started_ms // MS_PER_S)


@FAMILY.command("save", 1, f"{_SAVES} no_multi")
def save(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused: what is acknowledged is in the write-ahead log."""
    raise ReplyError(texts.NO_SNAPSHOT)


@FAMILY.command("bgsave", -1, _SAVES)
def bgsave(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused: what is acknowledged is in the write-ahead log."""
    raise ReplyError(texts.NO_SNAPSHOT)


@FAMILY.command("bgrewriteaof", 1, _SAVES)
def bgrewriteaof(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused: RocksDB cuts its write-ahead log itself."""
    raise ReplyError(texts.NO_AOF_REWRITE)


@FAMILY.command("debug", -2, "admin noscript loading stale")
def debug(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused, as Redis does unless told otherwise."""
    raise ReplyError(texts.NO_DEBUG)


@FAMILY.command("shutdown", -1, "admin noscript loading stale no_multi allow_busy")
def shutdown(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Stop in order, as SIGTERM does; nothing acknowledged is lost, whatever the option. There is no reply, the connection closes."""
    options = [word.lower() for word in words[1:]]
    if not _SHUTDOWN_OPTIONS.issuperset(options) or (b"save" in options and b"nosave" in options):
        raise ReplyError(texts.SYNTAX)
    if b"abort" in options:
        raise ReplyError(texts.SYNTAX if len(options) > 1 else texts.NO_SHUTDOWN)
    _log.info("shutdown asked for", client=session.peer, name=session.name.decode())
    session.closing = True
    session.services.stop.set()
    return b""
