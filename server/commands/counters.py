"""Strings that are numbers: INCR, DECR and their relatives. The expiry stays."""

from __future__ import annotations

from pipeline.format.values import body_start, encode_string, expiry_ms
from server.commands import longdouble
from server.commands.arguments import INT64_MAX, INT64_MIN
from server.commands.arguments import integer as integer_of
from server.commands.registry import Family, Keys
from server.commands.strings import read_string
from server.resp import texts
from server.resp.replies import ReplyError, bulk, integer
from server.session import Session

FAMILY = Family("string", "string")

_UPDATES = Keys(1, 1, 1, "RW access update")


@FAMILY.command("incr", 2, "write denyoom fast", _UPDATES)
def incr(session: Session, words: list[bytes], slot: int) -> bytes:
    """Add one to an integer; the sum."""
    return _add(session, words[1], slot, 1)


@FAMILY.command("decr", 2, "write denyoom fast", _UPDATES)
def decr(session: Session, words: list[bytes], slot: int) -> bytes:
    """Take one from an integer; what is left."""
    return _add(session, words[1], slot, -1)


@FAMILY.command("incrby", 3, "write denyoom fast", _UPDATES)
def incrby(session: Session, words: list[bytes], slot: int) -> bytes:
    """Add to an integer; the sum."""
    return _add(session, words[1], slot, integer_of(words[2]))


@FAMILY.command("decrby", 3, "write denyoom fast", _UPDATES)
def decrby(session: Session, words: list[bytes], slot: int) -> bytes:
    """Take from an integer; what is left."""
    amount = integer_of(words[2])
    if amount == INT64_MIN:
        raise ReplyError(texts.DECREMENT_OVERFLOW)
    return _add(session, words[1], slot, -amount)


@FAMILY.command("incrbyfloat", 3, "write denyoom fast", _UPDATES)
def incrbyfloat(session: Session, words: list[bytes], slot: int) -> bytes:
    """Add to a number; the sum as text."""
    raw = read_string(session, words[1], slot)
    total = longdouble.add(b"0" if raw is None else raw[body_start(raw) :], words[2])
    _store(session, words[1], slot, raw, total)
    return bulk(total)


def _add(session: Session, key: bytes, slot: int, amount: int) -> bytes:
    raw = read_string(session, key, slot)
    total = (0 if raw is None else integer_of(raw[body_start(raw) :])) + amount
    if not INT64_MIN <= total <= INT64_MAX:
        raise ReplyError(texts.INCREMENT_OVERFLOW)
    _store(session, key, slot, raw, b"%d" % total)
    return integer(total)


def _store(session: Session, key: bytes, slot: int, before: bytes | None, value: bytes) -> None:
    session.engine.write(key, slot, encode_string(value, expiry_ms(before) if before else None))
