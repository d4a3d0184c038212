"""Keys of any type: DEL, EXISTS, TYPE, TTL, PTTL."""

from __future__ import annotations

from pipeline.format.values import ValueType, expiry_ms
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family, Keys
from server.resp.replies import integer, simple
from server.session import Session

FAMILY = Family("generic", "keyspace")

_TYPE_NAMES = {int(kind): simple(kind.redis_name) for kind in ValueType}
_NO_TYPE = simple("none")
_NO_KEY = -2
_NO_EXPIRY = -1
_SUM = "request_policy:multi_shard response_policy:agg_sum"


@FAMILY.command("del", -2, "write", Keys(1, -1, 1, "RM delete"), tips=_SUM)
def delete(session: Session, words: list[bytes], slot: int) -> bytes:
    """Remove keys; how many there were."""
    return integer(sum(session.engine.delete(key, slot) for key in words[1:]))


@FAMILY.command("exists", -2, "readonly fast", Keys(1, -1, 1, "RO"), tips=_SUM)
def exists(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many of the named keys there are; a key named twice counts twice."""
    return integer(sum(raw is not None for raw in session.engine.read_many(words[1:], slot)))


@FAMILY.command("type", 2, "readonly fast", LOOKS_AT_KEY)
def type_(session: Session, words: list[bytes], slot: int) -> bytes:
    """The type of a key's value."""
    raw = session.engine.read(words[1], slot)
    return _NO_TYPE if raw is None else _TYPE_NAMES[raw[0]]


@FAMILY.command("ttl", 2, "readonly fast", READS_KEY, tips="nondeterministic_output")
def ttl(session: Session, words: list[bytes], slot: int) -> bytes:
    """Seconds until a key expires, rounded; -1 if never, -2 if there is no key."""
    left = _left_ms(session, words[1], slot)
    return integer(left if left < 0 else (left + 500) // 1_000)


@FAMILY.command("pttl", 2, "readonly fast", READS_KEY, tips="nondeterministic_output")
def pttl(session: Session, words: list[bytes], slot: int) -> bytes:
    """Milliseconds until a key expires; -1 if never, -2 if there is no key."""
    return integer(_left_ms(session, words[1], slot))


def _left_ms(session: Session, key: bytes, slot: int) -> int:
    raw = session.engine.read(key, slot)
    if raw is None:
        return _NO_KEY
    expiry = expiry_ms(raw)
    return _NO_EXPIRY if expiry is None else max(expiry - session.engine.clock(), 0)
