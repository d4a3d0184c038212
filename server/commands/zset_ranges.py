"""Ranges of sorted sets: ZRANGE in all its forms, ZCOUNT, ZLEXCOUNT.

Packed sets lie in rank order, so a range is a slice; big ones are walked.
"""

from __future__ import annotations

from collections.abc import Awaitable

from server.commands.arguments import integer as to_integer
from server.commands.registry import READS_KEY, Family
from server.commands.zrange import Bounds, By, RangeOptions, bounds_of, parse_options
from server.commands.zset_access import listed_in_turns, member_of, read_zset, span
from server.resp.replies import EMPTY_ARRAY, array, double, integer
from server.session import Session
from server.storage.big import BigCollection, gathered, ranked
from server.storage.big_zset import counted
from server.storage.packed import PackedZset

FAMILY = Family("sorted-set", "sortedset")


@FAMILY.command("zrange", -4, "readonly", READS_KEY)
def zrange(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members in a range of ranks, scores or names."""
    return _range(session, words, slot, parse_options(words))


@FAMILY.command("zrevrange", -4, "readonly", READS_KEY)
def zrevrange(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members in a range of ranks, counted from the highest score."""
    return _range(session, words, slot, parse_options(words, By.RANK, reverse=True))


@FAMILY.command("zrangebyscore", -4, "readonly", READS_KEY)
def zrangebyscore(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members in a range of scores."""
    return _range(session, words, slot, parse_options(words, By.SCORE, reverse=False))


@FAMILY.command("zrevrangebyscore", -4, "readonly", READS_KEY)
def zrevrangebyscore(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members in a range of scores, the highest first."""
    return _range(session, words, slot, parse_options(words, By.SCORE, reverse=True))


@FAMILY.command("zrangebylex", -4, "readonly", READS_KEY)
def zrangebylex(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members of equal score in a range of names."""
    return _range(session, words, slot, parse_options(words, By.LEX, reverse=False))


@FAMILY.command("zrevrangebylex", -4, "readonly", READS_KEY)
def zrevrangebylex(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members of equal score in a range of names, the last first."""
    return _range(session, words, slot, parse_options(words, By.LEX, reverse=True))


@FAMILY.command("zcount", 4, "readonly fast", READS_KEY)
def zcount(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """How many members have a score in a range."""
    return _count(session, words, slot, By.SCORE)


@FAMILY.command("zlexcount", 4, "readonly fast", READS_KEY)
def zlexcount(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """How many members of equal score have a name in a range."""
    return _count(session, words, slot, By.LEX)


def _range(session: Session, words: list[bytes], slot: int, options: RangeOptions) -> bytes | Awaitable[bytes]:
    low, high = (words[3], words[2]) if options.reverse and options.by is not By.RANK else (words[2], words[3])
    if options.by is not By.RANK:
        bounds = bounds_of(options.by, low, high)
        zset = read_zset(session, words[1], slot)
        if zset is None:
            return EMPTY_ARRAY
        if isinstance(zset, BigCollection):
            return _big_range(zset, bounds, options, session.resp)
        return _emit(zset, *bounds.limited(zset, options), options, session.resp)
    first, last = to_integer(low), to_integer(high)
    zset = read_zset(session, words[1], slot)
    if zset is None:
        return EMPTY_ARRAY
    first, end = ranks_of(zset.count, first, last)
    if first >= end:
        return EMPTY_ARRAY
    if options.reverse:
        first, end = zset.count - end, zset.count - first
    if isinstance(zset, BigCollection):
        return _big_ranks(zset, first, end, options, session.resp)
    return _emit(zset, first, end, options, session.resp)


def ranks_of(count: int, first: int, last: int) -> tuple[int, int]:
    """Ranks as a client counts them, as the first one and the one beyond."""
    first = max(first + count if first < 0 else first, 0)
    last = last + count if last < 0 else min(last, count - 1)
    return (first, last + 1) if first <= last else (0, 0)


def _count(session: Session, words: list[bytes], slot: int, by: By) -> bytes | Awaitable[bytes]:
    bounds = bounds_of(by, words[2], words[3])
    zset = read_zset(session, words[1], slot)
    if zset is None:
        return integer(0)
    if isinstance(zset, BigCollection):
        return _big_count(zset, bounds)
    first, end = bounds(zset)
    return integer(max(end - first, 0))


async def _big_count(big: BigCollection, bounds: Bounds) -> bytes:
    with big:
        return integer(await counted(span(big, bounds)))


async def _big_ranks(big: BigCollection, first: int, end: int, options: RangeOptions, resp: int) -> bytes:
    with big:
        entries = await big.between(first, end)
    if options.reverse:
        entries.reverse()
    return await listed_in_turns(len(entries), map(ranked, entries), resp, with_scores=options.with_scores)


async def _big_range(big: BigCollection, bounds: Bounds, options: RangeOptions, resp: int) -> bytes:
    """A range by score or name; a negative offset leaves nothing, a negative count everything, as in Redis."""
    if options.offset < 0:
        return EMPTY_ARRAY
    with big:
        entries = await gathered(span(big, bounds, reverse=options.reverse), options.offset, options.count)
    members = (member_of(bounds, entry) for entry in entries)
    return await listed_in_turns(len(entries), members, resp, with_scores=options.with_scores)


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
