"""Meta values: decoding is the inverse of encoding, and a packed hash is the reply that HGETALL sends."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import FormatError
from pipeline.format.values import (
    BigValue,
    HashValue,
    MetaValue,
    StringValue,
    ValueType,
    ZsetValue,
    body_start,
    bulk,
    canonical_reply,
    decode_value,
    decompressed,
    encode_compressed,
    encode_hash,
    encode_string,
    encode_value,
    encode_zset,
    expiry_ms,
    rank,
    score_text,
)

EXPIRIES = st.none() | st.integers(0, 2**64 - 1)
BYTES = st.binary(max_size=40)
HASHES = st.builds(HashValue, st.dictionaries(BYTES, BYTES, min_size=1).map(lambda one: tuple(one.items())), EXPIRIES)
ZSETS = st.builds(
    ZsetValue,
    st.dictionaries(BYTES, st.floats(allow_nan=False), min_size=1).map(lambda one: tuple(sorted(one.items(), key=rank))),
    EXPIRIES,
)
STRINGS = st.builds(StringValue, st.binary(), EXPIRIES)
BIGS = st.builds(
    BigValue, st.sampled_from([ValueType.HASH, ValueType.ZSET]), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), EXPIRIES
)
VALUES = STRINGS | HASHES | ZSETS | BIGS


@given(VALUES)
def test_decode_is_the_inverse_of_encode(value: MetaValue) -> None:
    raw = encode_value(value)
    assert decode_value(raw) == value
    assert expiry_ms(raw) == value.expiry_ms
    assert body_start(raw) == (2 if value.expiry_ms is None else 10)


@given(st.binary() | st.tuples(st.integers(1, 3), st.integers(0, 7), st.binary()).map(lambda parts: bytes(parts[:2]) + parts[2]))
def test_whatever_decodes_encodes_to_the_same_bytes_and_the_rest_is_a_format_error(raw: bytes) -> None:
    try:
        value = decode_value(raw)
    except FormatError:
        return
    assert encode_value(value) == raw


@given(HASHES | ZSETS, st.data())
def test_a_changed_byte_is_a_format_error_or_another_valid_value(value: MetaValue, data: st.DataObject) -> None:
    raw = bytearray(encode_value(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_value(bytes(raw))
    except FormatError:
        return
    assert encode_value(changed) == bytes(raw)


@given(HASHES | ZSETS | BIGS, st.data())
def test_a_cut_collection_is_a_format_error(value: MetaValue, data: st.DataObject) -> None:
    raw = encode_value(value)
    with pytest.raises(FormatError):
        decode_value(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=5000), st.none() | st.integers(0, 2**63))
def test_a_compressed_string_is_the_same_string(value: bytes, expiry: int | None) -> None:
    long = value * 20
    raw = encode_compressed(long, expiry)
    if raw is not None:
        assert len(raw) < len(encode_string(long, expiry))
        assert decode_value(raw) == StringValue(long, expiry)
        assert decompressed(raw) == encode_string(long, expiry)
        assert canonical_reply(raw) == bulk(long)


@pytest.mark.parametrize(
    "change", [lambda raw: raw[:5], lambda raw: raw[:-1], lambda raw: raw[:2] + b"\xff" * 4 + raw[6:], lambda raw: b"\x02" + raw[1:]]
)
def test_a_broken_compressed_string_is_refused(change: Callable[[bytes], bytes]) -> None:
    raw = encode_compressed(b"ab" * 2048)
    assert raw is not None
    with pytest.raises(FormatError):
        decode_value(change(raw))


@pytest.mark.parametrize("flag", [0x08, 0x10, 0x20, 0x40, 0x80])
def test_an_unknown_flag_is_never_ignored(flag: int) -> None:
    with pytest.raises(FormatError, match=f"flags 0x{flag:02x}"):
        decode_value(bytes((ValueType.STRING, flag)) + b"text")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no known type"),
        (b"\x04\x00", "no known type"),
        (b"\x01\x01\x00", "ends before its expiry"),
        (b"\x01\x04" + bytes(16), "no big collection"),
        (b"\x02\x04" + bytes(15), "no big collection"),
        (b"\x02\x00" + struct.pack("<III", 1, 0, 9) + b"$1\r\na\r\n", "do not span"),
        (b"\x02\x00" + struct.pack("<III", 1, 0, 15) + b"$01\r\na\r\n$1\r\nb\r\n", "wrong length"),
        (b"\x02\x00" + struct.pack("<III", 1, 0, 7) + b"$1\r\na\r\n", "no bulk string"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(raw: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        decode_value(raw)


@given(HASHES)
def test_a_packed_hash_ends_with_the_body_of_its_reply(value: HashValue) -> None:
    reply = canonical_reply(encode_value(value))
    header = b"*%d\r\n" % (2 * len(value.pairs))
    assert reply.startswith(header)
    assert encode_hash(value.pairs).endswith(reply.removeprefix(header))


@given(HASHES)
def test_every_pair_is_one_slice_by_the_offset_table(value: HashValue) -> None:
    raw = encode_hash(value.pairs)
    (count,) = struct.unpack_from("<I", raw, 2)
    offsets = struct.unpack_from(f"<{count + 1}I", raw, 6)
    bulks = raw[6 + 4 * (count + 1) :]
    assert [bulks[offsets[i] : offsets[i + 1]] for i in range(count)] == [bulk(field) + bulk(text) for field, text in value.pairs]


def test_zset_is_put_in_rank_order() -> None:
    raw = encode_zset([(b"b", 1.0), (b"a", 1.0), (b"z", -math.inf), (b"c", 0.5)])
    assert decode_value(raw) == ZsetValue(((b"z", -math.inf), (b"c", 0.5), (b"a", 1.0), (b"b", 1.0)))


@pytest.mark.parametrize("scores", [(2.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_a_zset_out_of_rank_order_is_refused(scores: tuple[float, float]) -> None:
    bulks = bulk(b"a") * 2
    raw = b"\x03\x00" + struct.pack("<IddIII", 2, *scores, 0, 7, 14) + bulks
    with pytest.raises(FormatError, match="rank order"):
        decode_value(raw)


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (encode_string(b""), b"$0\r\n\r\n"),
        (encode_string(b"a\r\nb", 5), b"$4\r\na\r\nb\r\n"),
        (encode_hash([(b"f", b"v")]), b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        (encode_zset([(b"m", 1.5)]), b"*2\r\n$1\r\nm\r\n$3\r\n1.5\r\n"),
    ],
)
def test_canonical_replies(raw: bytes, reply: bytes) -> None:
    assert canonical_reply(raw) == reply


def test_a_big_collection_has_no_reply_in_its_meta_value() -> None:
    with pytest.raises(FormatError, match="big hash"):
        canonical_reply(encode_value(BigValue(ValueType.HASH, 1, 2)))


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (3.0, b"3"),
        (-0.0, b"-0"),
        (0.1, b"0.10000000000000001"),
        (1e17, b"1e+17"),
        (math.inf, b"inf"),
        (-math.inf, b"-inf"),
        (-14.0, b"-14"),
    ],
)
def test_scores_print_as_redis_7_0_prints_them(score: float, text: bytes) -> None:
    assert score_text(score) == text


def test_types_have_the_names_that_type_answers() -> None:
    assert [kind.redis_name for kind in ValueType] == ["string", "hash", "zset"]
