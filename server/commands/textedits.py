"""Strings in part: their length, a range of their bytes, and changes in place, which keep the expiry."""

from __future__ import annotations

from pipeline.format.values import body_start, encode_string, expiry_ms
from server.commands.arguments import integer as integer_of
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family, Keys
from server.commands.strings import read_string
from server.resp import texts
from server.resp.replies import ReplyError, bulk, integer
from server.session import Session

FAMILY = Family("string", "string")


@FAMILY.command("strlen", 2, "readonly fast", LOOKS_AT_KEY)
def strlen(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many bytes a string has."""
    raw = read_string(session, words[1], slot)
    return integer(0 if raw is None else len(raw) - body_start(raw))


@FAMILY.command("append", 3, "write denyoom fast", Keys(1, 1, 1, "RW insert"))
def append(session: Session, words: list[bytes], slot: int) -> bytes:
    """Add bytes to the end of a string; how many it has then."""
    raw = read_string(session, words[1], slot)
    return _stored(session, words[1], slot, raw, _body(raw) + words[2])


@FAMILY.command("getrange", 4, "readonly", READS_KEY)
def getrange(session: Session, words: list[bytes], slot: int) -> bytes:
    """The bytes of a string from one place to another, both included; negative places count from the end."""
    start, end = integer_of(words[2]), integer_of(words[3])
    value = _body(read_string(session, words[1], slot))
    if start < 0 and end < 0 and start > end:
        return bulk(b"")
    first = max(start + len(value) if start < 0 else start, 0)
    last = max(end + len(value) if end < 0 else end, 0)
    return bulk(value[first : last + 1])


FAMILY.add("substr", getrange, 4, "readonly", READS_KEY)


@FAMILY.command("setrange", 4, "write denyoom", Keys(1, 1, 1, "RW update"))
def setrange(session: Session, words: list[bytes], slot: int) -> bytes:
    """Write bytes over a string from a place on, with zero bytes up to there; how many bytes it has then."""
    offset, part = integer_of(words[2]), words[3]
    if offset < 0:
        raise ReplyError(texts.OFFSET_OUT_OF_RANGE)
    raw = read_string(session, words[1], slot)
    value = _body(raw)
    if not part:
        return integer(len(value))
    if offset + len(part) > session.services.config.proto_max_bulk_len:
        raise ReplyError(texts.STRING_TOO_LONG)
    return _stored(session, words[1], slot, raw, value[:offset].ljust(offset, b"\0") + part + value[offset + len(part) :])


def _body(raw: bytes | None) -> bytes:
    return b"" if raw is None else raw[body_start(raw) :]


def _stored(session: Session, key: bytes, slot: int, before: bytes | None, value: bytes) -> bytes:
    if len(value) > session.services.config.proto_max_bulk_len:
        raise ReplyError(texts.STRING_TOO_LONG)
    session.engine.write(key, slot, encode_string(value, expiry_ms(before) if before else None))
    return integer(len(value))
