"""Strings as wholes: GET, SET and their relatives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.format.keys import USER_KEY_BYTES_MAX
from pipeline.format.slots import key_slot
from pipeline.format.values import HEAD_BYTES, ValueType, body_start, encode_string, expiry_ms, with_expiry
from server.commands.expiry import UNITS_MS, future_ms
from server.commands.registry import DECLINED, READS_KEY, Family, Keys
from server.resp import texts
from server.resp.replies import NULL, OK, ReplyError, array, bulk, integer
from server.session import Session

FAMILY = Family("string", "string")

_STRING = int(ValueType.STRING)
_HEAD = encode_string(b"")
_WRITES = Keys(1, 1, 1, "OW update")


def read_string(session: Session, key: bytes, slot: int) -> bytes | None:
    """The meta value of a string; None if there is no key.

    Raises:
        ReplyError: the key holds another type.
    """
    raw = session.engine.read(key, slot)
    if raw is not None and raw[0] != _STRING:
        raise ReplyError(texts.WRONG_TYPE)
    return raw


def _get_from(session: Session, _words: list[bytes], raw: bytes | None) -> bytes:
    if raw is None:
        return NULL[session.resp]
    if raw[0] != _STRING:
        return DECLINED
    value = raw[body_start(raw) if raw[1] else HEAD_BYTES :]
    return b"$%d\r\n%b\r\n" % (len(value), value)


@FAMILY.command("get", 2, "readonly fast", READS_KEY, answer=_get_from)
def get(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of a string."""
    reply = _get_from(session, words, session.engine.read(words[1], slot))
    if not reply:
        raise ReplyError(texts.WRONG_TYPE)
    return reply


@FAMILY.command("mget", -2, "readonly fast", Keys(1, -1, 1, "RO access"), tips="request_policy:multi_shard")
def mget(session: Session, words: list[bytes], _slot: int) -> bytes:
    """The values of some keys; null for what is no string."""
    null = NULL[session.resp]
    values = session.engine.read_many(words[1:])
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
    expiry = future_ms("set", options.unit, options.amount, session.engine.clock()) if options.unit else None
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
        return _bulk_of(before, session.resp)
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
        elif name in UNITS_MS and not options.keep_ttl and options.unit in (b"", name) and place + 1 < len(words):
            place += 1
            options.unit, options.amount = name, words[place]
        else:
            raise ReplyError(texts.SYNTAX)
        place += 1
    return options


@FAMILY.command("setnx", 3, "write denyoom fast", Keys(1, 1, 1, "OW insert"))
def setnx(session: Session, words: list[bytes], slot: int) -> bytes:
    """Set a key to a string if there is no such key; whether it was set."""
    if session.engine.read(words[1], slot) is not None:
        return integer(0)
    session.engine.write(words[1], slot, _HEAD + words[2])
    return integer(1)


@FAMILY.command("setex", 4, "write denyoom", _WRITES)
def setex(session: Session, words: list[bytes], slot: int) -> bytes:
    """Set a key to a string that expires after some seconds."""
    return _set_expiring(session, words, slot, "setex", b"ex")


@FAMILY.command("psetex", 4, "write denyoom", _WRITES)
def psetex(session: Session, words: list[bytes], slot: int) -> bytes:
    """Set a key to a string that expires after some milliseconds."""
    return _set_expiring(session, words, slot, "psetex", b"px")


def _set_expiring(session: Session, words: list[bytes], slot: int, command: str, unit: bytes) -> bytes:
    expiry = future_ms(command, unit, words[2], session.engine.clock())
    session.engine.write(words[1], slot, encode_string(words[3], expiry))
    return OK


@FAMILY.command("getset", 3, "write denyoom fast", Keys(1, 1, 1, "RW access update"))
def getset(session: Session, words: list[bytes], slot: int) -> bytes:
    """Set a key to a string; what it held."""
    reply = _bulk_of(read_string(session, words[1], slot), session.resp)
    session.engine.write(words[1], slot, _HEAD + words[2])
    return reply


@FAMILY.command("getdel", 2, "write fast", Keys(1, 1, 1, "RW access delete"))
def getdel(session: Session, words: list[bytes], slot: int) -> bytes:
    """Remove a string; what it held."""
    raw = read_string(session, words[1], slot)
    if raw is not None:
        session.engine.delete(words[1], slot)
    return _bulk_of(raw, session.resp)


@FAMILY.command("getex", -2, "write fast", Keys(1, 1, 1, "RW access update", "RW and UPDATE because it changes the TTL"))
def getex(session: Session, words: list[bytes], slot: int) -> bytes:
    """The value of a string, whose expiry is set or removed."""
    unit, amount, persist = _getex_options(words)
    raw = read_string(session, words[1], slot)
    if raw is None:
        return NULL[session.resp]
    if unit:
        now = session.engine.clock()
        expiry = future_ms("getex", unit, amount, now)
        if expiry <= now:
            session.engine.delete(words[1], slot)
        else:
            session.engine.write(words[1], slot, with_expiry(raw, expiry))
    elif persist and expiry_ms(raw) is not None:
        session.engine.write(words[1], slot, with_expiry(raw, None))
    return _bulk_of(raw, session.resp)


def _getex_options(words: list[bytes]) -> tuple[bytes, bytes, bool]:
    unit = amount = b""
    persist = False
    place = 2
    while place < len(words):
        name = words[place].lower()
        if name == b"persist" and not unit:
            persist = True
        elif name in UNITS_MS and not persist and unit in (b"", name) and place + 1 < len(words):
            place += 1
            unit, amount = name, words[place]
        else:
            raise ReplyError(texts.SYNTAX)
        place += 1
    return unit, amount, persist


@FAMILY.command("mset", -3, "write denyoom", Keys(1, -1, 2, "OW update"), tips="request_policy:multi_shard response_policy:all_succeeded")
def mset(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Set some keys to strings, all at once."""
    _write_all(session, _strings(words, "mset"))
    return OK


@FAMILY.command("msetnx", -3, "write denyoom", Keys(1, -1, 2, "OW insert"), tips="request_policy:multi_shard response_policy:agg_min")
def msetnx(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Set some keys to strings if there is none of them; whether they were set."""
    values = _strings(words, "msetnx")
    if any(raw is not None for raw in session.engine.read_many(list(values))):
        return integer(0)
    _write_all(session, values)
    return integer(1)


def _strings(words: list[bytes], command: str) -> dict[bytes, bytes]:
    """Keys and their new meta values, all of them fit to be stored: a command writes all or none."""
    if len(words) % 2 == 0:
        raise ReplyError(texts.wrong_arity(command))
    if max(map(len, words[1::2])) > USER_KEY_BYTES_MAX:
        raise ReplyError(texts.KEY_TOO_LONG)
    return {key: _HEAD + value for key, value in zip(words[1::2], words[2::2], strict=True)}


def _write_all(session: Session, values: dict[bytes, bytes]) -> None:
    for key, raw in values.items():
        session.engine.write(key, key_slot(key), raw)


def _bulk_of(raw: bytes | None, resp: int) -> bytes:
    return NULL[resp] if raw is None else bulk(raw[body_start(raw) :])
