"""Hashes: HGETALL, HGET, HMGET, HLEN. Packed ones are answered by slices of what is stored."""

from __future__ import annotations

from pipeline.format.values import ValueType
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family
from server.resp import texts
from server.resp.replies import NULL, ReplyError, array, integer, map_header
from server.session import Session
from server.storage import packed

FAMILY = Family("hash", "hash")

_HASH = int(ValueType.HASH)


def _read(session: Session, key: bytes, slot: int) -> bytes | None:
    raw = session.engine.read(key, slot)
    if raw is not None and raw[0] != _HASH:
        raise ReplyError(texts.WRONG_TYPE)
    return raw


@FAMILY.command("hgetall", 2, "readonly", READS_KEY, tips="nondeterministic_output_order")
def hgetall(session: Session, words: list[bytes], slot: int) -> bytes:
    """All fields and values of a hash."""
    raw = _read(session, words[1], slot)
    if raw is None:
        return map_header(0, session.resp)
    pairs, bulks = packed.hash_bulks(raw)
    return map_header(pairs, session.resp) + bulks


@FAMILY.command("hget", 3, "readonly fast", READS_KEY)
def hget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of one field."""
    raw = _read(session, words[1], slot)
    found = None if raw is None else session.services.fields.find(raw, words[2:])[0]
    return NULL[session.resp] if found is None else found


@FAMILY.command("hmget", -3, "readonly fast", READS_KEY)
def hmget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The values of some fields."""
    raw = _read(session, words[1], slot)
    null = NULL[session.resp]
    fields = words[2:]
    if raw is None:
        return array(len(fields)) + null * len(fields)
    return array(len(fields)) + b"".join([null if one is None else one for one in session.services.fields.find(raw, fields)])


@FAMILY.command("hlen", 2, "readonly fast", LOOKS_AT_KEY)
def hlen(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many fields a hash has."""
    raw = _read(session, words[1], slot)
    return integer(0 if raw is None else packed.count(raw))
