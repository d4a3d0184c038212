"""Hashes: HGETALL, HGET, HMGET, HLEN, HSCAN. Packed ones are answered by slices of what is stored, big ones element by element."""

from __future__ import annotations

from collections.abc import Awaitable

from pipeline.format.values import Flag, HashValue, ValueType, decode_value
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family
from server.commands.scanning import page_reply, parse_page, scan_big
from server.resp import texts
from server.resp.replies import NULL, ReplyError, array, bulk, integer, map_header
from server.session import Session
from server.storage import packed
from server.storage.big import BigCollection, gathered

FAMILY = Family("hash", "hash")

_HASH = int(ValueType.HASH)
_BIG = int(Flag.BIG)


def _read(session: Session, key: bytes, slot: int) -> bytes | None:
    raw = session.engine.read(key, slot)
    if raw is not None and raw[0] != _HASH:
        raise ReplyError(texts.WRONG_TYPE)
    return raw


@FAMILY.command("hgetall", 2, "readonly", READS_KEY, tips="nondeterministic_output_order")
def hgetall(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """All fields and values of a hash."""
    raw = _read(session, words[1], slot)
    if raw is None:
        return map_header(0, session.resp)
    if raw[1] & _BIG:
        return _all_of(session.big(words[1], slot, raw), session.resp)
    pairs, bulks = packed.hash_bulks(raw)
    return map_header(pairs, session.resp) + bulks


@FAMILY.command("hget", 3, "readonly fast", READS_KEY)
def hget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of one field."""
    raw = _read(session, words[1], slot)
    found = None if raw is None else _find(session, words[1], slot, raw, words[2:])[0]
    return NULL[session.resp] if found is None else found


@FAMILY.command("hmget", -3, "readonly fast", READS_KEY)
def hmget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The values of some fields."""
    raw = _read(session, words[1], slot)
    null = NULL[session.resp]
    fields = words[2:]
    if raw is None:
        return array(len(fields)) + null * len(fields)
    return array(len(fields)) + b"".join([null if one is None else one for one in _find(session, words[1], slot, raw, fields)])


@FAMILY.command("hlen", 2, "readonly fast", LOOKS_AT_KEY)
def hlen(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many fields a hash has."""
    raw = _read(session, words[1], slot)
    if raw is not None and raw[1] & _BIG:
        return integer(session.big(words[1], slot, raw).count)
    return integer(0 if raw is None else packed.count(raw))


@FAMILY.command("hscan", -3, "readonly", READS_KEY, tips="nondeterministic_output")
def hscan(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Fields and values, page by page."""
    page = parse_page(words)
    raw = _read(session, words[1], slot)
    if raw is None:
        return page_reply(0, [])
    if raw[1] & _BIG:
        return scan_big(session.big(words[1], slot, raw), page, lambda entry: entry)
    value = decode_value(raw)
    pairs = value.pairs if isinstance(value, HashValue) else ()
    return page_reply(0, [pair for pair in pairs if page.matches(pair[0])])


def _find(session: Session, key: bytes, slot: int, raw: bytes, fields: list[bytes]) -> list[bytes | None]:
    """The value of every field as a bulk; None for fields that are not there."""
    if raw[1] & _BIG:
        return [None if one is None else bulk(one) for one in session.big(key, slot, raw).fields(fields)]
    return session.services.fields.find(raw, fields)


async def _all_of(big: BigCollection, resp: int) -> bytes:
    with big:
        entries = await gathered(big.walk(big.listing))
    return map_header(len(entries), resp) + b"".join([bulk(field) + bulk(value) for field, value in entries])
