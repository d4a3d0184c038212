"""Strings: GET, MGET, SET."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.format.values import HEAD_BYTES, ValueType, body_start, encode_string, expiry_ms
from server.commands.arguments import INT64_MAX, integer
from server.commands.registry import READS_KEY, Family, Keys
from server.resp import texts
from server.resp.replies import NULL, OK, ReplyError, array, bulk
from server.session import Session

FAMILY = Family("string", "string")

_STRING = int(ValueType.STRING)
_HEAD = encode_string(b"")
_UNITS_MS = {b"ex": 1_000, b"px": 1, b"exat": 1_000, b"pxat": 1}
_RELATIVE = frozenset({b"ex", b"px"})


@FAMILY.command("get", 2, "readonly fast", READS_KEY)
def get(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of a string."""
    raw = session.engine.read(words[1], slot)
    if raw is None:
        return NULL[session.resp]
    if raw[0] != _STRING:
        raise ReplyError(texts.WRONG_TYPE)
    value = raw[body_start(raw) if raw[1] else HEAD_BYTES :]
    return b"$%d\r\n%b\r\n" % (len(value), value)


@FAMILY.command("mget", -2, "readonly fast", Keys(1, -1, 1, "RO access"), tips="request_policy:multi_shard")
def mget(session: Session, words: list[bytes], slot: int) -> bytes:
    """The values of some keys; null for what is no string."""
    null = NULL[session.resp]
    values = session.engine.read_many(words[1:], slot)
    parts = [null if raw is None or raw[0] != _STRING else bulk(raw[body_start(raw) :]) for raw in values]
    return array(len(parts)) + b"".join(parts)


@dataclass(slots=True)
class _SetOptions:
    nx: bool = False
    xx: bool = False
    get: bool = False
    keep_ttl: bool = False
    unit: bytes = b""
    amount: bytes = b""


@FAMILY.command(
    "set", -3, "write denyoom", Keys(1, 1, 1, "RW access update variable_flags", "RW and ACCESS due to the optional `GET` argument")
)
def set_(session: Session, words: list[bytes], slot: int) -> bytes:
    """Set a key to a string, whatever it held."""
    if len(words) == 3:
        session.engine.write(words[1], slot, _HEAD + words[2])
        return OK
    return _set_with_options(session, words, slot, _options(words))


def _set_with_options(session: Session, words: list[bytes], slot: int, options: _SetOptions) -> bytes:
    expiry = _expiry(session, options) if options.unit else None
    before = None
    if options.nx or options.xx or options.get or options.keep_ttl:
        before = session.engine.read(words[1], slot)
    if options.get and before is not None and before[0] != _STRING:
        raise ReplyError(texts.WRONG_TYPE)
    if options.keep_ttl and before is not None:
        expiry = expiry_ms(before)
    met = not (options.nx and before is not None) and not (options.xx and before is None)
    if met:
        session.engine.write(words[1], slot, encode_string(words[2], expiry))
    if options.get:
        return NULL[session.resp] if before is None else bulk(before[body_start(before) :])
    return OK if met else NULL[session.resp]


def _options(words: list[bytes]) -> _SetOptions:
    options = _SetOptions()
    place = 3
    while place < len(words):
        name = words[place].lower()
        if name == b"nx" and not options.xx:
            options.nx = True
        elif name == b"xx" and not options.nx:
            options.xx = True
        elif name == b"get":
            options.get = True
        elif name == b"keepttl" and not options.unit:
            options.keep_ttl = True
        elif name in _UNITS_MS and not options.keep_ttl and options.unit in (b"", name) and place + 1 < len(words):
            place += 1
            options.unit, options.amount = name, words[place]
        else:
            raise ReplyError(texts.SYNTAX)
        place += 1
    return options


def _expiry(session: Session, options: _SetOptions) -> int:
    unit_ms = _UNITS_MS[options.unit]
    amount = integer(options.amount)
    base = session.engine.clock() if options.unit in _RELATIVE else 0
    if amount <= 0 or amount > INT64_MAX // unit_ms or amount * unit_ms > INT64_MAX - base:
        raise ReplyError(texts.invalid_expiry("set"))
    return amount * unit_ms + base
