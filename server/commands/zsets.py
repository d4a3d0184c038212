"""Sorted sets: ZRANGE in all its forms, ZSCORE, ZCARD, ZSCAN. Packed ones lie in rank order, so a range is a slice; big ones are walked."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import takewhile

from pipeline.format.keys import Kind
from pipeline.format.values import Flag, ValueType, parse_element_score, score_text
from server.commands.arguments import integer as to_integer
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family
from server.commands.scanning import page_reply, parse_page, scan_big
from server.commands.zrange import By, LexBounds, RangeOptions, ScoreBounds, lex_bounds, parse_options, score_bounds
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, NULL, ReplyError, array, bulk, double, integer
from server.session import Session
from server.storage.big import BigCollection, gathered, ranked
from server.storage.packed import PackedZset

FAMILY = Family("sorted-set", "sortedset")

_ZSET = int(ValueType.ZSET)
_BIG = int(Flag.BIG)


def _read(session: Session, key: bytes, slot: int) -> PackedZset | BigCollection | None:
    raw = session.engine.read(key, slot)
    if raw is None:
        return None
    if raw[0] != _ZSET:
        raise ReplyError(texts.WRONG_TYPE)
    return session.big(key, slot, raw) if raw[1] & _BIG else PackedZset(raw)


@FAMILY.command("zrange", -4, "readonly", READS_KEY)
def zrange(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members in a range of ranks, scores or names."""
    options = parse_options(words)
    low, high = (words[3], words[2]) if options.reverse and options.by is not By.RANK else (words[2], words[3])
    if options.by is By.RANK:
        first_rank, last_rank = to_integer(low), to_integer(high)
        zset = _read(session, words[1], slot)
        if zset is None:
            return EMPTY_ARRAY
        first, end = _ranks(zset.count, first_rank, last_rank, options)
        if first >= end:
            return EMPTY_ARRAY
        if isinstance(zset, BigCollection):
            return _big_ranks(zset, first, end, options, session.resp)
        return _emit(zset, first, end, options, session.resp)
    bounds: ScoreBounds | LexBounds = score_bounds(low, high) if options.by is By.SCORE else lex_bounds(low, high)
    zset = _read(session, words[1], slot)
    if zset is None:
        return EMPTY_ARRAY
    if isinstance(zset, BigCollection):
        return _big_range(zset, bounds, options, session.resp)
    first, end = bounds(zset)
    return _emit(zset, *_limited(first, end, options), options, session.resp)


@FAMILY.command("zscore", 3, "readonly fast", READS_KEY)
def zscore(session: Session, words: list[bytes], slot: int) -> bytes:
    """The score of a member."""
    zset = _read(session, words[1], slot)
    if isinstance(zset, BigCollection):
        score = zset.score(words[2])
        return NULL[session.resp] if score is None else double(score, session.resp)
    rank = -1 if zset is None else zset.rank(words[2])
    return NULL[session.resp] if zset is None or rank < 0 else double(zset.score(rank), session.resp)


@FAMILY.command("zscan", -3, "readonly", READS_KEY, tips="nondeterministic_output")
def zscan(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members and scores, page by page."""
    page = parse_page(words)
    zset = _read(session, words[1], slot)
    if zset is None:
        return page_reply(0, [])
    if isinstance(zset, BigCollection):
        return scan_big(zset, page, lambda entry: _scanned(*ranked(entry[0])))
    pairs = (_scanned(zset.member(rank), zset.score(rank)) for rank in range(zset.count))
    return page_reply(0, [pair for pair in pairs if page.matches(pair[0])])


def _scanned(member: bytes, score: float) -> tuple[bytes, bytes]:
    return member, score_text(score)


@FAMILY.command("zcard", 2, "readonly fast", LOOKS_AT_KEY)
def zcard(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many members a sorted set has."""
    zset = _read(session, words[1], slot)
    return integer(0 if zset is None else zset.count)


def _ranks(count: int, first: int, last: int, options: RangeOptions) -> tuple[int, int]:
    """Ranks as a client counts them, as the first one and the one beyond in stored order."""
    first = max(first + count if first < 0 else first, 0)
    last = last + count if last < 0 else min(last, count - 1)
    if first > last:
        return 0, 0
    return (count - 1 - last, count - first) if options.reverse else (first, last + 1)


async def _big_ranks(big: BigCollection, first: int, end: int, options: RangeOptions, resp: int) -> bytes:
    with big:
        entries = await big.between(first, end)
    members = [ranked(detail) for detail, _ in entries]
    return _listed(members[::-1] if options.reverse else members, options, resp)


async def _big_range(big: BigCollection, bounds: ScoreBounds | LexBounds, options: RangeOptions, resp: int) -> bytes:
    """A range by score or name; LIMIT as for `_limited`."""
    kind, start, end = bounds.of_big()
    if options.offset < 0 or (end is not None and start >= end):
        return EMPTY_ARRAY
    with big:
        if options.reverse:
            walked = takewhile(lambda entry: entry[0] >= start, big.walk(kind, end or b"", backwards=True))
        else:
            walked = takewhile(lambda entry: end is None or entry[0] < end, big.walk(kind, start))
        entries = await gathered(walked, options.offset, options.count)
    if kind is Kind.ZSET_RANK:
        return _listed([ranked(detail) for detail, _ in entries], options, resp)
    return _listed([(member, parse_element_score(raw)) for member, raw in entries], options, resp)


def _listed(members: list[tuple[bytes, float]], options: RangeOptions, resp: int) -> bytes:
    if not options.with_scores:
        return array(len(members)) + b"".join([bulk(member) for member, _ in members])
    pair = array(2) if resp == 3 else b""
    header = array(len(members)) if resp == 3 else array(2 * len(members))
    return header + b"".join([pair + bulk(member) + double(score, resp) for member, score in members])


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
