"""When keys expire: EXPIRE and its like, TTL and its like, PERSIST."""

from __future__ import annotations

from pipeline.format.values import expiry_ms, with_expiry
from server.commands.expiry import any_ms
from server.commands.registry import READS_KEY, Family, Keys
from server.resp import texts
from server.resp.replies import ReplyError, integer
from server.session import Session

FAMILY = Family("generic", "keyspace")

_UPDATES = Keys(1, 1, 1, "RW update")
_CONDITIONS = frozenset({b"nx", b"xx", b"gt", b"lt"})
_NO_KEY = -2
_NO_EXPIRY = -1


@FAMILY.command("ttl", 2, "readonly fast", READS_KEY, tips="nondeterministic_output")
def ttl(session: Session, words: list[bytes], slot: int) -> bytes:
    """Seconds until a key expires, rounded; -1 if never, -2 if there is no key."""
    left = _left_ms(session, words[1], slot)
    return integer(left if left < 0 else (left + 500) // 1_000)


@FAMILY.command("pttl", 2, "readonly fast", READS_KEY, tips="nondeterministic_output")
def pttl(session: Session, words: list[bytes], slot: int) -> bytes:
    """Milliseconds until a key expires; -1 if never, -2 if there is no key."""
    return integer(_left_ms(session, words[1], slot))


@FAMILY.command("expiretime", 2, "readonly fast", READS_KEY)
def expiretime(session: Session, words: list[bytes], slot: int) -> bytes:
    """The second since the epoch at which a key expires; -1 if never, -2 if there is no key."""
    moment = _moment_ms(session, words[1], slot)
    return integer(moment if moment < 0 else (moment + 500) // 1_000)


@FAMILY.command("pexpiretime", 2, "readonly fast", READS_KEY)
def pexpiretime(session: Session, words: list[bytes], slot: int) -> bytes:
    """The millisecond since the epoch at which a key expires; -1 if never, -2 if there is no key."""
    return integer(_moment_ms(session, words[1], slot))


@FAMILY.command("persist", 2, "write fast", _UPDATES)
def persist(session: Session, words: list[bytes], slot: int) -> bytes:
    """Let a key never expire; whether it would have."""
    raw = session.engine.read(words[1], slot)
    if raw is None or expiry_ms(raw) is None:
        return integer(0)
    session.engine.write(words[1], slot, with_expiry(raw, None))
    return integer(1)


@FAMILY.command("expire", -3, "write fast", _UPDATES)
def expire(session: Session, words: list[bytes], slot: int) -> bytes:
    """Let a key expire after some seconds; whether it will."""
    return _expire(session, words, slot, b"ex")


@FAMILY.command("pexpire", -3, "write fast", _UPDATES)
def pexpire(session: Session, words: list[bytes], slot: int) -> bytes:
    """Let a key expire after some milliseconds; whether it will."""
    return _expire(session, words, slot, b"px")


@FAMILY.command("expireat", -3, "write fast", _UPDATES)
def expireat(session: Session, words: list[bytes], slot: int) -> bytes:
    """Let a key expire at a second since the epoch; whether it will."""
    return _expire(session, words, slot, b"exat")


@FAMILY.command("pexpireat", -3, "write fast", _UPDATES)
def pexpireat(session: Session, words: list[bytes], slot: int) -> bytes:
    """Let a key expire at a millisecond since the epoch; whether it will."""
    return _expire(session, words, slot, b"pxat")


def _expire(session: Session, words: list[bytes], slot: int, unit: bytes) -> bytes:
    conditions = _conditions(words[3:])
    now = session.engine.clock()
    moment = any_ms(session.last_command, unit, words[2], now)
    raw = session.engine.read(words[1], slot)
    if raw is None or not _met(conditions, moment, expiry_ms(raw)):
        return integer(0)
    if moment <= now:
        session.engine.delete(words[1], slot)
    else:
        session.engine.write(words[1], slot, with_expiry(raw, moment))
    return integer(1)


def _conditions(words: list[bytes]) -> frozenset[bytes]:
    for word in words:
        if word.lower() not in _CONDITIONS:
            raise ReplyError(texts.expire_option(word))
    named = frozenset(word.lower() for word in words)
    if b"nx" in named and len(named) > 1:
        raise ReplyError(texts.EXPIRE_NX_WITH_OTHERS)
    if named >= {b"gt", b"lt"}:
        raise ReplyError(texts.EXPIRE_GT_WITH_LT)
    return named


def _met(conditions: frozenset[bytes], moment: int, current: int | None) -> bool:
    """A key that never expires is one that expires last of all."""
    return not (
        (b"nx" in conditions and current is not None)
        or (b"xx" in conditions and current is None)
        or (b"gt" in conditions and (current is None or moment <= current))
        or (b"lt" in conditions and current is not None and moment >= current)
    )


def _moment_ms(session: Session, key: bytes, slot: int) -> int:
    raw = session.engine.read(key, slot)
    if raw is None:
        return _NO_KEY
    expiry = expiry_ms(raw)
    return _NO_EXPIRY if expiry is None else expiry


def _left_ms(session: Session, key: bytes, slot: int) -> int:
    moment = _moment_ms(session, key, slot)
    return moment if moment < 0 else max(moment - session.engine.clock(), 0)
