"""Meta values: what stands under a meta key.

Rules:
- A small collection is packed in place, as the bytes that its reply is made of; a big one holds only version and size here.
- Numbers in values are little-endian: they are read by offset, never compared bytewise.
- A flag that a reader does not know is an error, never ignored.

::

    meta-value  := type(u8) flags(u8) [expiry-ms(u64) if EXPIRES] body
    type        := 0x01 string | 0x02 hash | 0x03 zset
    flags       := 0x01 EXPIRES | 0x02 LZ4 (strings) | 0x04 BIG (hashes and zsets)
    body        := string-body | packed-hash | packed-zset | big
    string-body := the value's bytes | [if LZ4] length(u32) lz4-block, whose `length` bytes unpacked are the value's
    packed-hash := count(u32) offset(u32){count+1} (bulk(field) bulk(value)){count}
    packed-zset := count(u32) score(f64){count} offset(u32){count+1} bulk(member){count}     in rank order
    big         := version(u64) count(u64)
    under the element keys of a big collection: a field's value as it is; a member's score(f64);
                   under a rank nothing, but '-' if the score is -0.0
    bulk(x)     := '$' decimal-length CR LF x CR LF
    offset i    := where pair (or member) i starts, counted from the first bulk; the last one is their total length

Rank order is by score, then by member bytewise, as in Redis.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import accumulate, pairwise
from math import copysign

import lz4.block

from pipeline.format.errors import FormatError

PACKED_BYTES_MAX = 16 << 20  # a packed value is read and written as a whole, so no reader takes a larger one
SMALL_ENTRIES_MAX = 512  # a collection made of rows is packed up to so many pairs or members (Redis' hash-max-listpack-entries) ...
SMALL_BYTES_MAX = 64 << 10  # ... and so many bytes of them: a point read of a larger one costs more than an element of its own
LZ4_BYTES_MIN = 1 << 10  # a smaller string stays as it is: a 4 KiB block of them compresses as well
LZ4_GAIN_MIN = 8  # compressed only if at least one byte in so many is saved, or every read would unpack for nothing
STRING_BYTES_MAX = 512 << 20  # Redis' proto-max-bulk-len; a compressed length beyond it is no value's


class ValueType(IntEnum):
    """The first byte of a meta value."""

    STRING = 0x01
    HASH = 0x02
    ZSET = 0x03

    @property
    def redis_name(self) -> str:
        """What TYPE answers."""
        return self.name.lower()


class Flag(IntFlag):
    """The second byte of a meta value."""

    EXPIRES = 0x01
    LZ4 = 0x02
    BIG = 0x04


HEAD_BYTES = 2
EXPIRY_BYTES = 8
COUNT_BYTES = 4
OFFSET_BYTES = 4
SCORE_BYTES = 8

NEGATIVE_ZERO = b"-"  # under a rank

_EXPIRY = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_BIG = struct.Struct("<QQ")
_SCORE = struct.Struct("<d")
_UNREADABLE_FLAGS = 0xFF & ~int(
    Flag.EXPIRES | Flag.LZ4 | Flag.BIG
)  # by int: an IntFlag's own complement drops the bits that it does not name
_TYPES = frozenset(ValueType)
_EXPIRES = int(Flag.EXPIRES)  # an IntFlag's own operators cost a microsecond, and every read of a key looks


@dataclass(frozen=True, slots=True)
class StringValue:
    """A string; `expiry_ms` is milliseconds since the epoch, or None."""

    value: bytes
    expiry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HashValue:
    """A packed hash: (field, value) pairs in stored order, fields unique."""

    pairs: tuple[tuple[bytes, bytes], ...]
    expiry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ZsetValue:
    """A packed sorted set: (member, score) in rank order, members unique."""

    members: tuple[tuple[bytes, float], ...]
    expiry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BigValue:
    """A collection whose elements have keys of their own: element version and exact size."""

    type: ValueType
    version: int
    count: int
    expiry_ms: int | None = None


MetaValue = StringValue | HashValue | ZsetValue | BigValue


def bulk(raw: bytes) -> bytes:
    """One RESP bulk string."""
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def head(kind: ValueType, expiry_ms: int | None = None, flags: int = 0) -> bytes:
    """Type, flags and expiry: the start of every meta value."""
    if expiry_ms is None:
        return bytes((kind, flags))
    return bytes((kind, flags | Flag.EXPIRES)) + _EXPIRY.pack(expiry_ms)


def encode_string(value: bytes, expiry_ms: int | None = None) -> bytes:
    """The meta value of a string, as it is."""
    return head(ValueType.STRING, expiry_ms) + value


def encode_compressed(value: bytes, expiry_ms: int | None = None) -> bytes | None:
    """The meta value of a string, compressed; None if that saves too little."""
    block: bytes = lz4.block.compress(value, store_size=False)
    if len(block) > len(value) - len(value) // LZ4_GAIN_MIN:
        return None
    return head(ValueType.STRING, expiry_ms, Flag.LZ4) + _LENGTH.pack(len(value)) + block


def decompressed(raw: bytes) -> bytes:
    """A meta value without the flag LZ4: the same string as it is.

    Raises:
        FormatError: it can't be unpacked.
    """
    at = body_start(raw)
    try:
        (length,) = _LENGTH.unpack_from(raw, at)
        body = _unpacked(raw[at + _LENGTH.size :], length)
    except (struct.error, ValueError, lz4.block.LZ4BlockError) as broken:
        raise FormatError(f"compressed string {raw[:16]!r}... can't be unpacked: {broken}") from broken
    return bytes((raw[0], raw[1] & ~Flag.LZ4)) + raw[HEAD_BYTES:at] + body


def _unpacked(block: bytes, length: int) -> bytes:
    if length > STRING_BYTES_MAX:
        raise ValueError(f"its length is {length}")
    body: bytes = lz4.block.decompress(block, uncompressed_size=length)
    if len(body) != length:
        raise ValueError(f"it has {len(body)} bytes, not {length}")
    return body


def encode_hash(pairs: Sequence[tuple[bytes, bytes]], expiry_ms: int | None = None) -> bytes:
    """The meta value of a packed hash; fields must be unique, at least one."""
    bulks = [bulk(field) + bulk(value) for field, value in pairs]
    return head(ValueType.HASH, expiry_ms) + _COUNT.pack(len(bulks)) + _offsets(bulks) + b"".join(bulks)


def encode_zset(members: Iterable[tuple[bytes, float]], expiry_ms: int | None = None) -> bytes:
    """The meta value of a packed sorted set; members must be unique, at least one. They are put in rank order here."""
    ranked = sorted(members, key=rank)
    bulks = [bulk(member) for member, _ in ranked]
    scores = struct.pack(f"<{len(ranked)}d", *(score for _, score in ranked))
    return head(ValueType.ZSET, expiry_ms) + _COUNT.pack(len(ranked)) + scores + _offsets(bulks) + b"".join(bulks)


def rank(entry: tuple[bytes, float]) -> tuple[float, bytes]:
    """The sort key of Redis' rank order."""
    return entry[1], entry[0]


def encode_big(kind: ValueType, version: int, count: int, expiry_ms: int | None = None) -> bytes:
    """The meta value of a big collection."""
    return head(kind, expiry_ms, Flag.BIG) + _BIG.pack(version, count)


def element_score(score: float) -> bytes:
    """What stands under a member's key of a big sorted set: its score, little-endian."""
    return _SCORE.pack(score)


def parse_element_score(raw: bytes) -> float:
    """The inverse of `element_score`."""
    return float(_SCORE.unpack(raw)[0])


def element_rank(score: float) -> bytes:
    """What stands under a rank's key, whose sortable score can't say that a zero is negative."""
    return NEGATIVE_ZERO if score == 0 and copysign(1, score) < 0 else b""


def encode_value(value: MetaValue) -> bytes:
    """The inverse of `decode_value`."""
    match value:
        case StringValue():
            return encode_string(value.value, value.expiry_ms)
        case HashValue():
            return encode_hash(value.pairs, value.expiry_ms)
        case ZsetValue():
            return encode_zset(value.members, value.expiry_ms)
        case BigValue():
            return encode_big(value.type, value.version, value.count, value.expiry_ms)


def _offsets(bulks: list[bytes]) -> bytes:
    return struct.pack(f"<{len(bulks) + 1}I", *accumulate(map(len, bulks), initial=0))


def expiry_ms(raw: bytes) -> int | None:
    """When a meta value expires, in ms since the epoch; None if never."""
    if raw[1] & _EXPIRES:
        return int(_EXPIRY.unpack_from(raw, HEAD_BYTES)[0])
    return None


def with_expiry(raw: bytes, expiry_ms: int | None) -> bytes:
    """The same meta value with another expiry, or with none."""
    return head(ValueType(raw[0]), expiry_ms, raw[1] & ~Flag.EXPIRES) + raw[body_start(raw) :]


def body_start(raw: bytes) -> int:
    """Where the body of a meta value starts."""
    return HEAD_BYTES + EXPIRY_BYTES if raw[1] & _EXPIRES else HEAD_BYTES


def decode_value(raw: bytes) -> MetaValue:
    """Parse a whole meta value.

    Raises:
        FormatError: the bytes break the grammar above.
    """
    _check_head(raw)
    if raw[1] & Flag.LZ4:
        raw = decompressed(raw)
    kind, expiry, body = ValueType(raw[0]), expiry_ms(raw), raw[body_start(raw) :]
    if raw[1] & Flag.BIG:
        if kind is ValueType.STRING or len(body) != _BIG.size:
            raise FormatError(f"meta value {raw!r} is no big collection's")
        version, count = _BIG.unpack(body)
        return BigValue(kind, version, count, expiry)
    if kind is ValueType.STRING:
        return StringValue(body, expiry)
    try:
        if kind is ValueType.HASH:
            return HashValue(_unpack_hash(body), expiry)
        return ZsetValue(_unpack_zset(body), expiry)
    except (struct.error, ValueError) as broken:
        raise FormatError(f"packed {kind.redis_name} of {len(raw)} bytes is broken: {broken}") from broken


def _check_head(raw: bytes) -> None:
    if len(raw) < HEAD_BYTES or raw[0] not in _TYPES:
        raise FormatError(f"meta value {raw[:16]!r}... has no known type")
    if raw[1] & _UNREADABLE_FLAGS:
        raise FormatError(f"meta value {raw[:16]!r}... has flags 0x{raw[1]:02x}, which this software can't read")
    if len(raw) < body_start(raw):
        raise FormatError(f"meta value {raw!r} ends before its expiry")
    if raw[1] & Flag.LZ4 and raw[0] != ValueType.STRING:
        raise FormatError(f"meta value {raw[:16]!r}... has the flag LZ4, which is for strings alone")


def _unpack_hash(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    (count,) = _COUNT.unpack_from(body)
    pairs = []
    for chunk in _chunks(body, COUNT_BYTES, count):
        field, value_at = _unbulk(chunk, 0)
        value, end = _unbulk(chunk, value_at)
        if end != len(chunk):
            raise ValueError(f"pair of {field!r} has {len(chunk) - end} bytes too many")
        pairs.append((field, value))
    return tuple(pairs)


def _unpack_zset(body: bytes) -> tuple[tuple[bytes, float], ...]:
    (count,) = _COUNT.unpack_from(body)
    scores = struct.unpack_from(f"<{count}d", body, COUNT_BYTES)
    members = []
    for chunk, score in zip(_chunks(body, COUNT_BYTES + SCORE_BYTES * count, count), scores, strict=True):
        member, end = _unbulk(chunk, 0)
        if end != len(chunk):
            raise ValueError(f"member {member!r} has {len(chunk) - end} bytes too many")
        members.append((member, score))
    if any(score != score for score in scores) or any(rank(one) >= rank(other) for one, other in pairwise(members)):
        raise ValueError("members are not in rank order")
    return tuple(members)


def _chunks(body: bytes, table_at: int, count: int) -> list[bytes]:
    offsets = struct.unpack_from(f"<{count + 1}I", body, table_at)
    start = table_at + OFFSET_BYTES * (count + 1)
    if offsets[0] != 0 or start + offsets[-1] != len(body):
        raise ValueError("offsets do not span the bulks")
    return [body[start + low : start + high] for low, high in pairwise(offsets)]


def _unbulk(raw: bytes, at: int) -> tuple[bytes, int]:
    end = raw.find(b"\r\n", at)
    if raw[at : at + 1] != b"$" or end < 0:
        raise ValueError(f"no bulk string at byte {at}")
    digits = raw[at + 1 : end]
    length = int(digits)
    stop = end + 2 + length
    if digits != b"%d" % length or length < 0 or raw[stop : stop + 2] != b"\r\n":
        raise ValueError(f"bulk string at byte {at} has a wrong length")
    return raw[end + 2 : stop], stop + 2


def canonical_reply(raw: bytes) -> bytes:
    """What a RESP2 client gets for a meta value from GET, HGETALL, or ZRANGE 0 -1 WITHSCORES; the manifest's samples digest it.

    Raises:
        FormatError: broken bytes, or a big collection, whose reply is not in its meta value.
    """
    match decode_value(raw):
        case StringValue(value=value):
            return bulk(value)
        case HashValue(pairs=pairs):
            return b"*%d\r\n" % (2 * len(pairs)) + b"".join(bulk(part) for pair in pairs for part in pair)
        case ZsetValue(members=members):
            parts = (bulk(member) + bulk(score_text(score)) for member, score in members)
            return b"*%d\r\n" % (2 * len(members)) + b"".join(parts)
        case BigValue(type=kind):
            raise FormatError(f"a big {kind.redis_name} has no reply in its meta value")


def score_text(score: float) -> bytes:
    """A score as Redis 7.0 prints it: C's `%.17g`, with inf and -inf."""
    return b"%.17g" % score
