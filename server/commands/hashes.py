"""Hashes as they are read: HGETALL, HMGET and their relatives. Packed ones are answered by slices of what is stored, big ones element by
element, in turns.

A live hash does not change while many of its fields are asked for by name: the key is held. What walks it sees it as it was at the
beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from pipeline.format.values import Flag, ValueType, bulk
from server.commands.registry import DECLINED, LOOKS_AT_KEY, NO_SLOT, READS_KEY, Family
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, NULL, ReplyError, array, integer, map_header
from server.session import Session
from server.storage import packed, packed_hash
from server.storage.big import STEPS_PER_TURN, BigCollection, Entry

FAMILY = Family("hash", "hash")

FIELDS_PER_TURN = 512  # of one MultiGet: about 2 ms where the block cache holds them

HASH = int(ValueType.HASH)
BIG = int(Flag.BIG)


def read_hash(session: Session, key: bytes, slot: int) -> bytes | None:
    """The meta value of a hash; None if there is no key.

    Raises:
        ReplyError: the key holds another type.
    """
    raw = session.engine.read(key, slot)
    if raw is not None and raw[0] != HASH:
        raise ReplyError(texts.WRONG_TYPE)
    return raw


def _is_packed(raw: bytes) -> bool:
    """Whether this is a hash that is packed in its meta value."""
    return raw[0] == HASH and not raw[1] & BIG


def find_field(session: Session, key: bytes, slot: int, raw: bytes | None, field: bytes) -> bytes | None:
    """The value of one field as a bulk; None if it is not there."""
    if raw is None:
        return None
    if raw[1] & BIG:
        [value] = session.big(key, slot, raw).fields([field])
        return None if value is None else bulk(value)
    return session.services.fields.find(raw, [field])[0]


def bulk_bytes(one: bytes) -> bytes:
    """What a bulk holds."""
    return one[one.index(b"\n") + 1 : -2]


def _hget_from(session: Session, words: list[bytes], raw: bytes | None) -> bytes:
    if raw is not None and not _is_packed(raw):
        return DECLINED
    found = find_field(session, words[1], NO_SLOT, raw, words[2])  # the slot is for big hashes alone
    return NULL[session.resp] if found is None else found


@FAMILY.command("hget", 3, "readonly fast", READS_KEY, answer=_hget_from)
def hget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of one field."""
    found = find_field(session, words[1], slot, read_hash(session, words[1], slot), words[2])
    return NULL[session.resp] if found is None else found


@FAMILY.command("hexists", 3, "readonly fast", LOOKS_AT_KEY)
def hexists(session: Session, words: list[bytes], slot: int) -> bytes:
    """Whether a hash has a field."""
    raw = read_hash(session, words[1], slot)
    return integer(find_field(session, words[1], slot, raw, words[2]) is not None)


@FAMILY.command("hstrlen", 3, "readonly fast", LOOKS_AT_KEY)
def hstrlen(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many bytes the value of a field has."""
    found = find_field(session, words[1], slot, read_hash(session, words[1], slot), words[2])
    return integer(0 if found is None else len(bulk_bytes(found)))


@FAMILY.command("hlen", 2, "readonly fast", LOOKS_AT_KEY)
def hlen(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many fields a hash has."""
    raw = read_hash(session, words[1], slot)
    if raw is not None and raw[1] & BIG:
        return integer(session.big(words[1], slot, raw).count)
    return integer(0 if raw is None else packed.count(raw))


def _hmget_from(session: Session, words: list[bytes], raw: bytes | None) -> bytes:
    fields = words[2:]
    if raw is not None and (not _is_packed(raw) or len(fields) > FIELDS_PER_TURN):
        return DECLINED
    null = NULL[session.resp]
    if raw is None:
        return array(len(fields)) + null * len(fields)
    return array(len(fields)) + b"".join([null if one is None else one for one in session.services.fields.find(raw, fields)])


@FAMILY.command("hmget", -3, "readonly fast", READS_KEY, answer=_hmget_from)
def hmget(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """The values of some fields."""
    raw = read_hash(session, words[1], slot)
    reply = _hmget_from(session, words, raw)
    if reply or raw is None:
        return reply
    fields = words[2:]
    if len(fields) > FIELDS_PER_TURN:
        return _many_fields(session, words[1], slot, raw, fields)
    null = NULL[session.resp]
    values = session.big(words[1], slot, raw).fields(fields)
    return array(len(fields)) + b"".join([null if one is None else bulk(one) for one in values])


async def _many_fields(session: Session, key: bytes, slot: int, raw: bytes, fields: list[bytes]) -> bytes:
    null = NULL[session.resp]
    if not raw[1] & BIG:
        parts = [array(len(fields))]
        for first in range(0, len(fields), FIELDS_PER_TURN):
            found = session.services.fields.find(raw, fields[first : first + FIELDS_PER_TURN])
            parts += [null if one is None else one for one in found]
            await asyncio.sleep(0)
        return b"".join(parts)
    values = await field_values(session, session.big(key, slot, raw), key, fields)
    return array(len(fields)) + b"".join([null if one is None else bulk(one) for one in values])


async def field_values(session: Session, big: BigCollection, key: bytes, fields: list[bytes]) -> list[bytes | None]:
    """The values of many fields, in turns; a live hash stays as it is meanwhile."""
    values: list[bytes | None] = []
    with big, session.services.gate.hold([key]) if big.live else nullcontext():
        for first in range(0, len(fields), FIELDS_PER_TURN):
            values += big.fields(fields[first : first + FIELDS_PER_TURN])
            await asyncio.sleep(0)
    return values


def _hgetall_from(session: Session, _words: list[bytes], raw: bytes | None) -> bytes:
    if raw is None:
        return map_header(0, session.resp)
    if not _is_packed(raw):
        return DECLINED
    pairs, bulks = packed.hash_bulks(raw)
    return map_header(pairs, session.resp) + bulks


@FAMILY.command("hgetall", 2, "readonly", READS_KEY, tips="nondeterministic_output_order", answer=_hgetall_from)
def hgetall(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """All fields and values of a hash."""
    raw = read_hash(session, words[1], slot)
    if raw is not None and raw[1] & BIG:
        resp = session.resp
        return _all_of(session.big(words[1], slot, raw), lambda pairs: map_header(pairs, resp), _both)
    return _hgetall_from(session, words, raw)


@FAMILY.command("hkeys", 2, "readonly", READS_KEY, tips="nondeterministic_output_order")
def hkeys(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """All fields of a hash."""
    return _one_part(session, words, slot, packed_hash.field_bulks, _field)


@FAMILY.command("hvals", 2, "readonly", READS_KEY, tips="nondeterministic_output_order")
def hvals(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """All values of a hash."""
    return _one_part(session, words, slot, packed_hash.value_bulks, _value)


def _one_part(
    session: Session, words: list[bytes], slot: int, of_packed: Callable[[bytes], list[bytes]], shown: Callable[[Entry], bytes]
) -> bytes | Awaitable[bytes]:
    raw = read_hash(session, words[1], slot)
    if raw is None:
        return EMPTY_ARRAY
    if raw[1] & BIG:
        return _all_of(session.big(words[1], slot, raw), array, shown)
    bulks = of_packed(raw)
    return array(len(bulks)) + b"".join(bulks)


async def _all_of(big: BigCollection, header: Callable[[int], bytes], shown: Callable[[Entry], bytes]) -> bytes:
    parts = [b""]
    with big:
        for step, entry in enumerate(big.walk(big.listing), 1):
            parts.append(shown(entry))
            if step % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)
    parts[0] = header(len(parts) - 1)
    return b"".join(parts)


def _both(entry: Entry) -> bytes:
    field, value = entry
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(field), field, len(value), value)


def _field(entry: Entry) -> bytes:
    return bulk(entry[0])


def _value(entry: Entry) -> bytes:
    return bulk(entry[1])
