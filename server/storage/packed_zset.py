"""Edits of packed sorted sets: from meta value to meta value, by slices of what is stored. Pure.

Rules (grammar in pipeline/format/values.py):
- Head and expiry stay as they are. An edit never leaves a set empty: whoever takes the last member removes the key.
- Scores and bulks are moved, not decoded: a member's name is looked at only among equal scores, where it decides on the rank.
- Offsets behind an edit are shifted all at once, as one long number.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from pipeline.format.values import COUNT_BYTES, HEAD_BYTES, OFFSET_BYTES, SCORE_BYTES, body_start, bulk, encode_zset
from server.storage.packed import PackedZset

Change = Mapping[bytes, float | None]
"""The new score of some members; None takes a member away. Who is taken away must be there."""

SPLICED_MAX = 8  # changes that are made one after the other; for more, sorting the whole set is quicker

_COUNT = struct.Struct("<I")
_OFFSET = struct.Struct("<I")
_SCORE = struct.Struct("<d")


def edited(raw: bytes, changes: Change) -> bytes:
    """The same set with some members added, moved or taken away."""
    if len(changes) > SPLICED_MAX:
        return _made_anew(raw, changes)
    for member, score in changes.items():
        rank = PackedZset(raw).rank(member)
        if rank >= 0:
            raw = without_ranks(raw, rank, rank + 1)
        if score is not None:
            raw = _inserted(raw, member, score)
    return raw


def without_ranks(raw: bytes, first: int, end: int) -> bytes:
    """The same set without the members at ranks `first` to before `end`."""
    body = _body(raw)
    scores, table, bulks, count = _places(raw, body)
    low: int = _OFFSET.unpack_from(raw, table + OFFSET_BYTES * first)[0]
    high: int = _OFFSET.unpack_from(raw, table + OFFSET_BYTES * end)[0]
    return b"".join(
        (
            raw[:body],
            _COUNT.pack(count - (end - first)),
            raw[scores : scores + SCORE_BYTES * first],
            raw[scores + SCORE_BYTES * end : table + OFFSET_BYTES * first],
            _shifted(raw[table + OFFSET_BYTES * end : bulks], low - high),
            raw[bulks : bulks + low],
            raw[bulks + high :],
        )
    )


def members_of(raw: bytes) -> dict[bytes, float]:
    """All members and their scores, in rank order."""
    zset = PackedZset(raw)
    return dict(zip(map(zset.member, range(zset.count)), zset.scores(0, zset.count), strict=True))


def _inserted(raw: bytes, member: bytes, score: float) -> bytes:
    """The same set with a member that it lacks."""
    body = _body(raw)
    scores, table, bulks, count = _places(raw, body)
    rank, whole = _rank_for(PackedZset(raw), member, score), bulk(member)
    offset: int = _OFFSET.unpack_from(raw, table + OFFSET_BYTES * rank)[0]
    return b"".join(
        (
            raw[:body],
            _COUNT.pack(count + 1),
            raw[scores : scores + SCORE_BYTES * rank],
            _SCORE.pack(score),
            raw[scores + SCORE_BYTES * rank : table + OFFSET_BYTES * (rank + 1)],
            _shifted(raw[table + OFFSET_BYTES * rank : bulks], len(whole)),
            raw[bulks : bulks + offset],
            whole,
            raw[bulks + offset :],
        )
    )


def _rank_for(zset: PackedZset, member: bytes, score: float) -> int:
    scores = zset.scores(0, zset.count)
    first, end = bisect_left(scores, score), bisect_right(scores, score)
    return first if first == end else bisect_left(range(zset.count), member, first, end, key=zset.member)


def _made_anew(raw: bytes, changes: Change) -> bytes:
    merged: dict[bytes, float | None] = {**members_of(raw), **changes}
    body = encode_zset((member, score) for member, score in merged.items() if score is not None)
    return raw[: _body(raw)] + body[HEAD_BYTES:]


def _shifted(offsets: bytes, by: int) -> bytes:
    """All offsets of a part of the table, each moved by the same: none becomes negative or too large, so none reaches into the next."""
    ones = int.from_bytes(b"\x01\x00\x00\x00" * (len(offsets) // OFFSET_BYTES), "little")
    return (int.from_bytes(offsets, "little") + by * ones).to_bytes(len(offsets), "little")


def _places(raw: bytes, body: int) -> tuple[int, int, int, int]:
    """Where scores, offsets and bulks start, and how many members there are."""
    count: int = _COUNT.unpack_from(raw, body)[0]
    table = body + COUNT_BYTES + SCORE_BYTES * count
    return body + COUNT_BYTES, table, table + OFFSET_BYTES * (count + 1), count


def _body(raw: bytes) -> int:
    return body_start(raw) if raw[1] else HEAD_BYTES
