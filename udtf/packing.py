"""Meta values of many rows at once: what `pipeline.format.values` says, on Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.values import HEAD_BYTES, LZ4_BYTES_MIN, ValueType, body_start, encode_compressed, expiry_ms, head
from udtf.layout import Part, constant, decimal_lengths, fixed, join, ragged

_SIGN = np.uint64(1 << 63)


def heads(kind: ValueType, moments_ms: pa.Array) -> pa.Array:
    """The start of meta values, each with an expiry of its own in ms since the epoch; NULL means never."""
    # a moment before 1970, such as a sentinel of the year 1, has passed as well as 1970 has
    known = fixed(np.maximum(np.asarray(pc.fill_null(moments_ms, 0)), 0).astype("<u8").reshape(-1, 1))
    return pc.if_else(pc.is_valid(moments_ms), join([constant(head(kind, 0)[:HEAD_BYTES]), known]), constant(head(kind)))


def strings(start: Part, texts: pa.Array, *, lz4: bool) -> pa.Array:
    """The meta values of strings after their `start`; with `lz4`, large ones compressed where that makes them smaller."""
    plain = join([start, texts])
    if not lz4 or not len(texts) or (pc.max(pc.binary_length(texts)).as_py() or 0) < LZ4_BYTES_MIN:
        return plain
    values: list[bytes | None] = plain.to_pylist()
    for row in np.flatnonzero(np.asarray(pc.fill_null(pc.binary_length(texts), 0)) >= LZ4_BYTES_MIN):
        raw = values[row]
        if raw is not None:
            values[row] = encode_compressed(raw[body_start(raw) :], expiry_ms(raw)) or raw
    return pa.array(values, pa.binary())


def packed_hashes(start: Part, fields: Sequence[tuple[bytes, pa.Array]]) -> pa.Array:
    """The meta values of packed hashes after their `start`, one per row; a NULL leaves its field out. Every row has one at least."""
    pieces = [_pair(name, texts) for name, texts in fields]
    rows = len(pieces[0])
    present = np.column_stack([np.asarray(piece.is_valid()) for piece in pieces])
    lengths = np.column_stack([pc.fill_null(pc.binary_length(piece), 0).to_numpy(zero_copy_only=False) for piece in pieces])
    ends = np.concatenate((np.zeros((rows, 1), np.int64), np.cumsum(lengths, axis=1, dtype=np.int64)), axis=1)
    counts = present.sum(axis=1, dtype=np.int64)
    kept = np.concatenate((np.ones((rows, 1), bool), present), axis=1)
    table = ragged(ends[kept].astype("<u4"), counts + 1)
    parts: list[Part] = [start, fixed(counts.astype("<u4").reshape(-1, 1)), table, *pieces]
    return join(parts, skip_nulls=True)


def _pair(name: bytes, texts: pa.Array) -> pa.Array:
    start = constant(b"$%d\r\n%b\r\n$" % (len(name), name))
    end = constant(b"\r\n")
    return join([start, decimal_lengths(texts), end, texts, end])


def sortable_scores(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """`pipeline.format.keys.sortable_score` of many scores: big-endian numbers whose bytes order as the scores do."""
    bits = (scores + 0.0).view(np.uint64)
    flipped = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return flipped.astype(">u8")


def plain_scores(sortable: pa.Array) -> npt.NDArray[np.float64]:
    """The inverse: little-endian doubles of sortable scores; zero for NULL."""
    filled = pc.fill_null(sortable, b"\x80" + bytes(7))
    bits = np.frombuffer(join([filled, constant(b"")]).buffers()[2] or b"", ">u8")[: len(sortable)].astype(np.uint64)
    return np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view("<f8")
