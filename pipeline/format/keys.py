"""Internal keys: how a user key and its elements stand in RocksDB.

Rules:
- The slot comes first, so that a slot is one contiguous range of keys, and files of different slots never overlap.
- The kind comes second, so that walking the keys of a slot never meets elements.
- Big-endian numbers throughout: bytewise order is numeric order.
- Elements are ordered by user key as metas are, so one stream of rows sorted by user key gives both in order, without a second sort.

::

    internal key  := meta | hash-field | zset-member | zset-rank | marker | local
    meta          := slot(u16) 0x01 user-key
    hash-field    := slot(u16) 0x02 element-head field           (big collections only)
    zset-member   := slot(u16) 0x03 element-head member          (big collections only)
    zset-rank     := slot(u16) 0x04 element-head score(8) member (big collections only)
    marker        := slot(u16) 0xF0 file-id                      (reserved; nothing writes it)
    local         := 0xFFFF     0xFF name                        (a shard's own notes; never in an SST of a build)
    element-head  := escaped(user-key) 0x00 0x00 version(u64)
    escaped(x)    := x with every 0x00 replaced by 0x00 0xFF     (keeps the order, and no escaped key is the start of another)
    score(8)      := the IEEE 754 bits, sign bit flipped if positive, all bits flipped if negative
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from pipeline.format.errors import FormatError
from pipeline.format.slots import SLOT_COUNT, key_slot

USER_KEY_BYTES_MAX = 65_536  # far above any real key; keeps an internal key well inside one RocksDB block
ELEMENT_BYTES_MAX = 65_536  # of a field or member, which may become part of an internal key; as for user keys
SCORE_BYTES = 8  # of a sortable score
KIND_AT = 2  # where the kind stands, after the slot
LOCAL_SLOT = 0xFFFF  # above every slot, so a shard's own notes sort last and no slot range holds them

_HEAD = struct.Struct(">HB")
_VERSION = struct.Struct(">Q")
_BITS = struct.Struct(">Q")
_DOUBLE = struct.Struct(">d")
_END = b"\x00\x00"
_SIGN = 1 << 63
_ALL = (1 << 64) - 1


class Kind(IntEnum):
    """The second part of every internal key."""

    META = 0x01
    HASH_FIELD = 0x02
    ZSET_MEMBER = 0x03
    ZSET_RANK = 0x04
    MARKER = 0xF0
    LOCAL = 0xFF


ELEMENT_KINDS = frozenset({Kind.HASH_FIELD, Kind.ZSET_MEMBER, Kind.ZSET_RANK})


def meta_key(user_key: bytes, slot: int | None = None) -> bytes:
    """The internal key of a user key's meta value; pass `slot` where it is known already."""
    return _HEAD.pack(key_slot(user_key) if slot is None else slot, Kind.META) + user_key


def element_head(kind: Kind, user_key: bytes, version: int, slot: int | None = None) -> bytes:
    """The common start of all elements of one kind of one version of a big collection."""
    if kind not in ELEMENT_KINDS:
        raise ValueError(f"{kind!r} has no elements")
    head = _HEAD.pack(key_slot(user_key) if slot is None else slot, kind)
    return head + user_key.replace(b"\x00", b"\x00\xff") + _END + _VERSION.pack(version)


def element_version(version: str) -> int:
    """The element version of the collections that a bulk version brings: from its id, so that the same rows give the same entries."""
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[: _VERSION.size])


def local_key(name: bytes) -> bytes:
    """The internal key of one of a shard's own notes."""
    return _HEAD.pack(LOCAL_SLOT, Kind.LOCAL) + name


def marker_key(slot: int, file_id: bytes) -> bytes:
    """The internal key that says that a file was ingested; it lies in a slot of that file."""
    return _HEAD.pack(slot, Kind.MARKER) + file_id


def slot_bounds(first: int, last: int) -> tuple[bytes, bytes]:
    """The half-open range of internal keys that holds slots `first` to `last`, both included."""
    return struct.pack(">H", first), struct.pack(">H", last + 1)


@dataclass(frozen=True, slots=True)
class InternalKey:
    """A parsed internal key. `detail` is the field, member, rank (score and member), file id or local name; empty for metas."""

    slot: int
    kind: Kind
    user_key: bytes
    version: int
    detail: bytes

    def encode(self) -> bytes:
        """The inverse of `parse_key`."""
        if self.kind is Kind.META:
            return meta_key(self.user_key, self.slot)
        if self.kind in ELEMENT_KINDS:
            return element_head(self.kind, self.user_key, self.version, self.slot) + self.detail
        return _HEAD.pack(self.slot, self.kind) + self.detail


def parse_key(raw: bytes) -> InternalKey:
    """Parse an internal key.

    Raises:
        FormatError: the bytes break the grammar above.
    """
    if len(raw) < _HEAD.size:
        raise FormatError(f"internal key {raw!r} is shorter than slot and kind")
    slot, kind_number = _HEAD.unpack_from(raw)
    try:
        kind = Kind(kind_number)
    except ValueError:
        raise FormatError(f"internal key {raw!r} has the unknown kind 0x{kind_number:02x}") from None
    if (slot >= SLOT_COUNT) != (kind is Kind.LOCAL) or (kind is Kind.LOCAL and slot != LOCAL_SLOT):
        raise FormatError(f"internal key {raw!r} has slot {slot}, which kind {kind.name} can't have")
    rest = raw[_HEAD.size :]
    if kind is Kind.META:
        return InternalKey(slot, kind, rest, 0, b"")
    if kind not in ELEMENT_KINDS:
        return InternalKey(slot, kind, b"", 0, rest)
    return _parse_element(raw, slot, kind, rest)


def _parse_element(raw: bytes, slot: int, kind: Kind, rest: bytes) -> InternalKey:
    user_key, found, tail = rest.partition(_END)
    if not found or len(tail) < _VERSION.size:
        raise FormatError(f"element key {raw!r} ends before its version")
    if user_key.count(b"\x00") != user_key.count(b"\x00\xff"):
        raise FormatError(f"element key {raw!r} has an unescaped zero byte")
    if kind is Kind.ZSET_RANK and len(tail) < _VERSION.size + SCORE_BYTES:
        raise FormatError(f"element key {raw!r} ends before its score")
    (version,) = _VERSION.unpack_from(tail)
    return InternalKey(slot, kind, user_key.replace(b"\x00\xff", b"\x00"), version, tail[_VERSION.size :])


def sortable_score(score: float) -> bytes:
    """Eight bytes whose bytewise order is the order of scores. Negative zero becomes zero, as Redis compares them equal.

    Raises:
        ValueError: `score` is NaN, which has no order.
    """
    if score != score:
        raise ValueError("NaN is not a score")
    (bits,) = _BITS.unpack(_DOUBLE.pack(score + 0.0))
    return _BITS.pack(bits ^ _ALL if bits & _SIGN else bits | _SIGN)


def parse_sortable_score(raw: bytes) -> float:
    """The inverse of `sortable_score`."""
    (bits,) = _BITS.unpack(raw)
    (score,) = _DOUBLE.unpack(_BITS.pack(bits ^ _SIGN if bits & _SIGN else bits ^ _ALL))
    return float(score)
