"""Hashes as they are written: HSET, HDEL, HINCRBY and their relatives, on live keys.

Rules:
- A hash is packed as long as Redis 7.0 would keep a listpack: up to `hash-max-listpack-entries` pairs, none of the words that set it longer
  than `hash-max-listpack-value`; one that outgrew that is big for good.
- A packed hash is read and written as one value, changed in place (packed_hash.py). Of a big one, the fields that a command names are read
  by one MultiGet, to know which are new, and written; the meta value is written when the count changes.
- All changes of a command to a big hash are made in one turn. Many of its fields are looked up in turns before, while the key is held. A
  hash that becomes big is written by construction.py.
- The key's expiry stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from pipeline.format.keys import ELEMENT_BYTES_MAX, Kind, element_head
from pipeline.format.values import PACKED_BYTES_MAX, ValueType, encode_big, encode_hash, expiry_ms
from server.commands import longdouble
from server.commands.arguments import INT64_MAX, INT64_MIN
from server.commands.arguments import integer as integer_of
from server.commands.construction import Plan, write_whole
from server.commands.hashes import BIG, FIELDS_PER_TURN, bulk_bytes, field_values, find_field, read_hash
from server.commands.registry import Family, Keys
from server.resp import texts
from server.resp.replies import OK, ReplyError, bulk, integer
from server.session import Session
from server.storage import packed, packed_hash
from server.storage.big import Entry

FAMILY = Family("hash", "hash")

_SETS = Keys(1, 1, 1, "RW update")
_ADDS = Keys(1, 1, 1, "RW access update")

Pairs = dict[bytes, bytes]
Reply = Callable[[int], bytes]


@FAMILY.command("hset", -4, "write denyoom fast", _SETS)
def hset(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Set fields of a hash; how many of them are new."""
    pairs = _pairs(words, "hset")
    return _store(session, words[1], slot, read_hash(session, words[1], slot), pairs, integer)


@FAMILY.command("hmset", -4, "write denyoom fast", _SETS)
def hmset(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Set fields of a hash."""
    pairs = _pairs(words, "hmset")
    return _store(session, words[1], slot, read_hash(session, words[1], slot), pairs, lambda _: OK)


def _pairs(words: list[bytes], command: str) -> list[bytes]:
    if len(words) % 2:
        raise ReplyError(texts.wrong_arity(command))
    return words[2:]


@FAMILY.command("hsetnx", 4, "write denyoom fast", Keys(1, 1, 1, "RW insert"))
def hsetnx(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Set a field of a hash if there is no such field; whether it was set."""
    raw = read_hash(session, words[1], slot)
    if find_field(session, words[1], slot, raw, words[2]) is not None:
        return integer(0)
    return _store(session, words[1], slot, raw, words[2:], integer)


@FAMILY.command("hincrby", 4, "write denyoom fast", _ADDS)
def hincrby(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Add to the integer in a field; the sum."""
    amount = integer_of(words[3])
    raw = read_hash(session, words[1], slot)
    before = find_field(session, words[1], slot, raw, words[2])
    total = amount + (0 if before is None else integer_of(bulk_bytes(before), texts.HASH_NOT_AN_INTEGER))
    if not INT64_MIN <= total <= INT64_MAX:
        raise ReplyError(texts.INCREMENT_OVERFLOW)
    return _store(session, words[1], slot, raw, [words[2], b"%d" % total], lambda _: integer(total))


@FAMILY.command("hincrbyfloat", 4, "write denyoom fast", _ADDS)
def hincrbyfloat(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Add to the number in a field; the sum as text."""
    amount = longdouble.parse(words[3])
    if amount is None:
        raise ReplyError(texts.NAN_OR_INFINITY)
    raw = read_hash(session, words[1], slot)
    before = find_field(session, words[1], slot, raw, words[2])
    try:
        number = longdouble.parse(b"0" if before is None else bulk_bytes(before))
    except ReplyError:
        raise ReplyError(texts.HASH_NOT_A_FLOAT) from None
    total = longdouble.total(number, amount)
    return _store(session, words[1], slot, raw, [words[2], total], lambda _: bulk(total))


@FAMILY.command("hdel", -3, "write fast", Keys(1, 1, 1, "RW delete"))
def hdel(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Remove fields of a hash; how many there were. A hash without fields is gone."""
    key = words[1]
    raw = read_hash(session, key, slot)
    if raw is None:
        return integer(0)
    fields = words[2:] if len(words) == 3 else list(dict.fromkeys(words[2:]))
    if not raw[1] & BIG:
        left, removals = packed_hash.without(raw, session.services.fields, fields)
        if left is None:
            session.engine.delete(key, slot)
        elif removals:
            session.engine.write(key, slot, left)
        return integer(removals)
    if len(fields) > FIELDS_PER_TURN:
        return _remove_many(session, key, slot, raw, fields)
    return _remove_found(session, key, slot, raw, fields, session.big(key, slot, raw).fields(fields))


async def _remove_many(session: Session, key: bytes, slot: int, raw: bytes, fields: list[bytes]) -> bytes:
    values = await field_values(session, session.big(key, slot, raw), key, fields)
    return _remove_found(session, key, slot, raw, fields, values)


def _remove_found(session: Session, key: bytes, slot: int, raw: bytes, fields: list[bytes], values: list[bytes | None]) -> bytes:
    big = session.big(key, slot, raw)
    going = [field for field, value in zip(fields, values, strict=True) if value is not None]
    head = big.head(Kind.HASH_FIELD)
    for field in going:
        session.engine.live.delete(head + field)
    if len(going) == big.count:
        session.engine.delete(key, slot)
    elif going:
        session.engine.write(key, slot, encode_big(ValueType.HASH, big.version, big.count - len(going), expiry_ms(raw)))
    return integer(len(going))


def _store(session: Session, key: bytes, slot: int, raw: bytes | None, words: list[bytes], reply: Reply) -> bytes | Awaitable[bytes]:
    """Set fields (`words` are fields and values in turn); `raw` is the meta value read in this turn, `reply` makes a reply of the number of
    new fields.
    """
    changes = {words[0]: words[1]} if len(words) == 2 else dict(zip(words[::2], words[1::2], strict=True))
    if raw is not None and raw[1] & BIG:
        return _store_in_big(session, key, slot, raw, changes, reply)
    entries_max = session.services.config.hash_max_listpack_entries
    if len(changes) <= entries_max and _small(session, words):
        if raw is None:
            packed_value, created = encode_hash(list(changes.items())), len(changes)
        else:
            packed_value, created = packed_hash.updated(raw, session.services.fields, changes)
        if packed.count(packed_value) <= entries_max and len(packed_value) <= PACKED_BYTES_MAX:
            session.engine.write(key, slot, packed_value)
            return reply(created)
    pairs = changes if raw is None else packed_hash.pairs_of(raw) | changes
    _check_fields(pairs)
    created = len(pairs) - (0 if raw is None else packed.count(raw))
    size = sum(map(len, pairs.values())) + sum(map(len, pairs))
    plan = Plan(ValueType.HASH, len(pairs), size, None if raw is None else expiry_ms(raw), partial(_entries, key, slot, pairs))
    return write_whole(session, key, slot, plan, reply(created))


def _small(session: Session, words: list[bytes]) -> bool:
    """Whether all words may stand in a packed hash; as in Redis, those of a field that is named twice, too."""
    longest = session.services.config.hash_max_listpack_value
    room = PACKED_BYTES_MAX
    for word in words:
        if len(word) > longest:
            return False
        room -= len(word)
    return room >= 0


def _entries(key: bytes, slot: int, pairs: Pairs, version: int) -> Iterator[Entry]:
    head = element_head(Kind.HASH_FIELD, key, version, slot)
    return ((head + field, value) for field, value in pairs.items())


def _store_in_big(session: Session, key: bytes, slot: int, raw: bytes, changes: Pairs, reply: Reply) -> bytes | Awaitable[bytes]:
    _check_fields(changes)
    fields = list(changes)
    if len(fields) > FIELDS_PER_TURN:
        return _store_many(session, key, slot, raw, changes, reply)
    return reply(_put_in_big(session, key, slot, raw, changes, session.big(key, slot, raw).fields(fields)))


async def _store_many(session: Session, key: bytes, slot: int, raw: bytes, changes: Pairs, reply: Reply) -> bytes:
    values = await field_values(session, session.big(key, slot, raw), key, list(changes))
    return reply(_put_in_big(session, key, slot, raw, changes, values))


def _put_in_big(session: Session, key: bytes, slot: int, raw: bytes, changes: Pairs, before: list[bytes | None]) -> int:
    big = session.big(key, slot, raw)
    created = before.count(None)
    head = big.head(Kind.HASH_FIELD)
    put = session.engine.live.put
    for field, value in changes.items():
        put(head + field, value)
    if created:
        session.engine.write(key, slot, encode_big(ValueType.HASH, big.version, big.count + created, expiry_ms(raw)))
    else:
        session.engine.touched(key)
    return created


def _check_fields(pairs: Pairs) -> None:
    if any(len(field) > ELEMENT_BYTES_MAX for field in pairs):
        raise ReplyError(texts.FIELD_TOO_LONG)
