"""Heads: what the elements of one kind of one big collection begin with, and whether anything still names them.

Rules:
- Elements are garbage if the meta value of their key does not name their version, whatever it is now: absent, a string, another version.
- A meta value that this software can't read names whatever it may.
- To go through all heads, one seek each: from any key, `heads_after` says where to look next.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.format.errors import FormatError
from pipeline.format.keys import ELEMENT_KINDS, KIND_AT, Kind, element_head, parse_key
from pipeline.format.slots import SLOT_COUNT
from pipeline.format.values import BigValue, ValueType, decode_value

ELEMENTS_OF = {ValueType.HASH: (Kind.HASH_FIELD,), ValueType.ZSET: (Kind.ZSET_MEMBER, Kind.ZSET_RANK)}

_TYPE_OF = {kind: type_ for type_, kinds in ELEMENTS_OF.items() for kind in kinds}
_FIRST_KIND, _LAST_KIND = min(ELEMENT_KINDS), max(ELEMENT_KINDS)
_SLOT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Head:
    """The head `raw`, and what it says."""

    raw: bytes
    kind: Kind
    user_key: bytes
    slot: int
    version: int

    @property
    def end(self) -> bytes:
        """The first key that is behind all elements."""
        return (int.from_bytes(self.raw) + 1).to_bytes(len(self.raw))


def heads_of(user_key: bytes, slot: int, raw: bytes) -> list[Head]:
    """The heads that a meta value names; none if it is no big collection's.

    Raises:
        FormatError: it can't be read.
    """
    value = decode_value(raw)
    if not isinstance(value, BigValue):
        return []
    return [
        Head(element_head(kind, user_key, value.version, slot), kind, user_key, slot, value.version) for kind in ELEMENTS_OF[value.type]
    ]


def head_at(internal_key: bytes) -> Head | None:
    """The head of an element's key; None if it is another kind of key.

    Raises:
        FormatError: the key breaks the grammar.
    """
    if internal_key[KIND_AT] not in ELEMENT_KINDS:
        return None
    key = parse_key(internal_key)
    raw = element_head(key.kind, key.user_key, key.version, key.slot)
    return Head(raw, key.kind, key.user_key, key.slot, key.version)


def heads_after(internal_key: bytes) -> bytes | None:
    """Where the next head may stand, after a key that is no element's; None if there is none."""
    slot = int.from_bytes(internal_key[:_SLOT_BYTES])
    if internal_key[KIND_AT] > _LAST_KIND:
        slot += 1
    return first_head(slot) if slot < SLOT_COUNT else None


def first_head(slot: int) -> bytes:
    """Below the heads of a slot, above its metas."""
    return slot.to_bytes(_SLOT_BYTES) + bytes((_FIRST_KIND,))


def is_named(head: Head, raw: bytes | None) -> bool:
    """Whether the meta value of the head's key, as it is now, names it."""
    if raw is None:
        return False
    try:
        value = decode_value(raw)
    except FormatError:
        return True
    return isinstance(value, BigValue) and value.version == head.version and value.type is _TYPE_OF[head.kind]
