"""Members that go by their place: ZREMRANGEBYRANK, ZREMRANGEBYSCORE, ZREMRANGEBYLEX, ZPOPMIN, ZPOPMAX.

From a big set, members are collected in turns of the event loop, while other commands on the key wait; then all go in one turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator

from pipeline.format.keys import Kind
from pipeline.format.values import Flag
from server.commands.arguments import integer as to_integer
from server.commands.registry import Family, Keys
from server.commands.zrange import By, bounds_of
from server.commands.zset_access import Member, listed, member_of, raw_zset, span
from server.commands.zset_ranges import ranks_of
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, ReplyError, array, bulk, double, integer
from server.session import Session
from server.storage.big import BigCollection, gathered, ranked
from server.storage.live_zset import change_big
from server.storage.packed import PackedZset
from server.storage.packed_zset import without_ranks

FAMILY = Family("sorted-set", "sortedset")

_BIG = int(Flag.BIG)
_DELETES = Keys(1, 1, 1, "RW delete")
_POPS = Keys(1, 1, 1, "RW access delete")


@FAMILY.command("zremrangebyrank", 4, "write", _DELETES)
def zremrangebyrank(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take away the members in a range of ranks; how many there were."""
    first, last = to_integer(words[2]), to_integer(words[3])
    raw = raw_zset(session, words[1], slot)
    if raw is None:
        return integer(0)
    if raw[1] & _BIG:
        big = session.big(words[1], slot, raw)
        return _remove_ranks_of_big(session, big, raw, *ranks_of(big.count, first, last))
    return integer(_remove_ranks(session, words[1], slot, raw, *ranks_of(PackedZset(raw).count, first, last)))


@FAMILY.command("zremrangebyscore", 4, "write", _DELETES)
def zremrangebyscore(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take away the members in a range of scores; how many there were."""
    return _remove_range(session, words, slot, By.SCORE)


@FAMILY.command("zremrangebylex", 4, "write", _DELETES)
def zremrangebylex(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take away the members of equal score in a range of names; how many there were."""
    return _remove_range(session, words, slot, By.LEX)


@FAMILY.command("zpopmin", -2, "write fast", _POPS)
def zpopmin(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take away the members of lowest score, and answer them."""
    return _pop(session, words, slot, highest=False)


@FAMILY.command("zpopmax", -2, "write fast", _POPS)
def zpopmax(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take away the members of highest score, and answer them."""
    return _pop(session, words, slot, highest=True)


def _remove_range(session: Session, words: list[bytes], slot: int, by: By) -> bytes | Awaitable[bytes]:
    bounds = bounds_of(by, words[2], words[3])
    raw = raw_zset(session, words[1], slot)
    if raw is None:
        return integer(0)
    if raw[1] & _BIG:
        big = session.big(words[1], slot, raw)
        return _remove_span(session, big, raw, (member_of(bounds, entry) for entry in span(big, bounds)))
    return integer(_remove_ranks(session, words[1], slot, raw, *bounds(PackedZset(raw))))


def _remove_ranks(session: Session, key: bytes, slot: int, raw: bytes, first: int, end: int) -> int:
    """How many there were at ranks `first` to before `end` of a packed set."""
    if first >= end:
        return 0
    if end - first == PackedZset(raw).count:
        session.engine.delete(key, slot)
    else:
        session.engine.write(key, slot, without_ranks(raw, first, end))
    return end - first


async def _remove_ranks_of_big(session: Session, big: BigCollection, raw: bytes, first: int, end: int) -> bytes:
    if first >= end:
        return integer(0)
    if end - first == big.count:
        session.engine.delete(big.user_key, big.slot)
        return integer(end - first)
    with session.services.gate.hold([big.user_key]):
        entries = await big.between(first, end)
        _take(session, big, raw, list(map(ranked, entries)))
    return integer(len(entries))


async def _remove_span(session: Session, big: BigCollection, raw: bytes, members: Iterator[Member]) -> bytes:
    with session.services.gate.hold([big.user_key]):
        gone = await gathered(members)
        _take(session, big, raw, gone)
    return integer(len(gone))


def _take(session: Session, big: BigCollection, raw: bytes, members: list[Member]) -> None:
    if members:
        current = dict(members)
        change_big(session.engine, big, raw, current, dict.fromkeys(current))


def _pop(session: Session, words: list[bytes], slot: int, *, highest: bool) -> bytes | Awaitable[bytes]:
    if len(words) > 3:
        raise ReplyError(texts.SYNTAX)
    asked = to_integer(words[2], texts.NOT_POSITIVE) if len(words) == 3 else 1
    if asked < 0:
        raise ReplyError(texts.NOT_POSITIVE)
    raw = raw_zset(session, words[1], slot)
    if raw is None or not asked:
        return EMPTY_ARRAY
    single = len(words) == 2
    if raw[1] & _BIG:
        return _pop_of_big(session, session.big(words[1], slot, raw), raw, asked, single=single, highest=highest)
    zset = PackedZset(raw)
    number = min(asked, zset.count)
    first = zset.count - number if highest else 0
    members = [(zset.member(rank), zset.score(rank)) for rank in range(first, first + number)]
    _remove_ranks(session, words[1], slot, raw, first, first + number)
    return _popped(members[::-1] if highest else members, session.resp, single=single)


async def _pop_of_big(session: Session, big: BigCollection, raw: bytes, asked: int, *, single: bool, highest: bool) -> bytes:
    with session.services.gate.hold([big.user_key]):
        members = list(map(ranked, await gathered(big.walk(Kind.ZSET_RANK, backwards=highest), 0, asked)))
        _take(session, big, raw, members)
    return _popped(members, session.resp, single=single)


def _popped(members: list[Member], resp: int, *, single: bool) -> bytes:
    """Pairs in RESP3, but a single member without being asked for a number of them is none."""
    if not single or resp == 2:
        return listed(members, resp, with_scores=True)
    member, score = members[0]
    return array(2) + bulk(member) + double(score, resp)
