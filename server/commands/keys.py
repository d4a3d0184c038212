"""Keys of any type: DEL, UNLINK, EXISTS, TOUCH, TYPE."""

from __future__ import annotations

from pipeline.format.slots import key_slot
from pipeline.format.values import ValueType
from server.commands.registry import LOOKS_AT_KEY, Family, Keys
from server.resp.replies import integer, simple
from server.session import Session

FAMILY = Family("generic", "keyspace")

_TYPE_NAMES = {int(kind): simple(kind.redis_name) for kind in ValueType}
_NO_TYPE = simple("none")
_SUM = "request_policy:multi_shard response_policy:agg_sum"


@FAMILY.command("del", -2, "write", Keys(1, -1, 1, "RM delete"), tips=_SUM)
def delete(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Remove keys; how many there were."""
    return integer(sum(session.engine.delete(key, key_slot(key)) for key in words[1:]))


FAMILY.add("unlink", delete, -2, "write fast", Keys(1, -1, 1, "RM delete"), tips=_SUM)


@FAMILY.command("exists", -2, "readonly fast", Keys(1, -1, 1, "RO"), tips=_SUM)
def exists(session: Session, words: list[bytes], _slot: int) -> bytes:
    """How many of the named keys there are; a key named twice counts twice."""
    return integer(sum(raw is not None for raw in session.engine.read_many(words[1:])))


FAMILY.add("touch", exists, -2, "readonly fast", Keys(1, -1, 1, "RO"), tips=_SUM)


@FAMILY.command("type", 2, "readonly fast", LOOKS_AT_KEY)
def type_(session: Session, words: list[bytes], slot: int) -> bytes:
    """The type of a key's value."""
    raw = session.engine.read(words[1], slot)
    return _NO_TYPE if raw is None else _TYPE_NAMES[raw[0]]
