"""Sorted sets: ZRANGE in all its forms, ZSCORE, ZCARD. Packed ones lie in rank order, so a range is a slice."""

from __future__ import annotations

from pipeline.format.values import ValueType
from server.commands.arguments import integer as to_integer
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family
from server.commands.zrange import By, RangeOptions, lex_bounds, parse_options, score_bounds
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, NULL, ReplyError, array, double, integer
from server.session import Session
from server.storage.packed import PackedZset

FAMILY = Family("sorted-set", "sortedset")

_ZSET = int(ValueType.ZSET)


def _read(session: Session, key: bytes, slot: int) -> PackedZset | None:
    raw = session.engine.read(key, slot)
    if raw is None:
        return None
    if raw[0] != _ZSET:
        raise ReplyError(texts.WRONG_TYPE)
    return PackedZset(raw)


@FAMILY.command("zrange", -4, "readonly", READS_KEY)
def zrange(session: Session, words: list[bytes], slot: int) -> bytes:
    """Members in a range of ranks, scores or names."""
    options = parse_options(words)
    low, high = (words[3], words[2]) if options.reverse and options.by is not By.RANK else (words[2], words[3])
    if options.by is By.RANK:
        first_rank, last_rank = to_integer(low), to_integer(high)
        zset = _read(session, words[1], slot)
        if zset is None:
            return EMPTY_ARRAY
        return _by_rank(zset, first_rank, last_rank, options, session.resp)
    bounds = score_bounds(low, high) if options.by is By.SCORE else lex_bounds(low, high)
    zset = _read(session, words[1], slot)
    if zset is None:
        return EMPTY_ARRAY
    first, end = bounds(zset)
    return _emit(zset, *_limited(first, end, options), options, session.resp)


@FAMILY.command("zscore", 3, "readonly fast", READS_KEY)
def zscore(session: Session, words: list[bytes], slot: int) -> bytes:
    """The score of a member."""
    zset = _read(session, words[1], slot)
    rank = -1 if zset is None else zset.rank(words[2])
    return NULL[session.resp] if zset is None or rank < 0 else double(zset.score(rank), session.resp)


@FAMILY.command("zcard", 2, "readonly fast", LOOKS_AT_KEY)
def zcard(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many members a sorted set has."""
    zset = _read(session, words[1], slot)
    return integer(0 if zset is None else zset.count)


def _by_rank(zset: PackedZset, first: int, last: int, options: RangeOptions, resp: int) -> bytes:
    first = max(first + zset.count if first < 0 else first, 0)
    last = last + zset.count if last < 0 else min(last, zset.count - 1)
    if first > last:
        return EMPTY_ARRAY
    if options.reverse:
        first, last = zset.count - 1 - last, zset.count - 1 - first
    return _emit(zset, first, last + 1, options, resp)


def _limited(first: int, end: int, options: RangeOptions) -> tuple[int, int]:
    """The part of a range that LIMIT leaves; a negative offset leaves nothing, a negative count everything, as in Redis."""
    if options.offset < 0:
        return first, first
    length = max(end - first - options.offset, 0)
    if options.count >= 0:
        length = min(length, options.count)
    start = end - options.offset - length if options.reverse else first + options.offset
    return start, start + length


def _emit(zset: PackedZset, first: int, end: int, options: RangeOptions, resp: int) -> bytes:
    if first >= end:
        return EMPTY_ARRAY
    if not options.with_scores:
        if not options.reverse:
            return array(end - first) + zset.bulks(first, end)
        return array(end - first) + b"".join([zset.bulk(rank) for rank in range(end - 1, first - 1, -1)])
    scores = [double(score, resp) for score in zset.scores(first, end)]
    members = [zset.bulk(rank) for rank in range(first, end)]
    if options.reverse:
        scores.reverse()
        members.reverse()
    pair = array(2) if resp == 3 else b""
    header = array(end - first) if resp == 3 else array(2 * (end - first))
    return header + b"".join([pair + member + score for member, score in zip(members, scores, strict=True)])
