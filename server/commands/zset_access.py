"""What commands on sorted sets share: how a set is read, and how members are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice, takewhile

from pipeline.format.keys import Kind
from pipeline.format.values import Flag, ValueType, parse_element_score
from server.commands.zrange import Bounds
from server.resp import texts
from server.resp.replies import ReplyError, array, bulk, double
from server.session import Session
from server.storage.big import STEPS_PER_TURN, BigCollection, Entry, ranked
from server.storage.packed import PackedZset

Member = tuple[bytes, float]

_ZSET = int(ValueType.ZSET)
_BIG = int(Flag.BIG)


def raw_zset(session: Session, key: bytes, slot: int) -> bytes | None:
    """The meta value of a sorted set; None if there is no key.

    Raises:
        ReplyError: the key holds another type.
    """
    raw = session.engine.read(key, slot)
    if raw is not None and raw[0] != _ZSET:
        raise ReplyError(texts.WRONG_TYPE)
    return raw


def read_zset(session: Session, key: bytes, slot: int) -> PackedZset | BigCollection | None:
    """A sorted set; None if there is no key.

    Raises:
        ReplyError: the key holds another type.
    """
    raw = raw_zset(session, key, slot)
    if raw is None:
        return None
    return session.big(key, slot, raw) if raw[1] & _BIG else PackedZset(raw)


def span(big: BigCollection, bounds: Bounds, *, reverse: bool = False) -> Iterator[Entry]:
    """The elements of a range, in order, each fit for `member_of`."""
    kind = bounds.kind
    start, end = bounds.of_big()
    if end is not None and start >= end:
        return iter(())
    if reverse:
        return takewhile(lambda entry: entry[0] >= start, big.walk(kind, end or b"", backwards=True))
    if end is None:
        return big.walk(kind, start)
    return takewhile(lambda entry: entry[0] < end, big.walk(kind, start))


def member_of(bounds: Bounds, entry: Entry) -> Member:
    """Member and score of an element of a range."""
    return ranked(entry) if bounds.kind is Kind.ZSET_RANK else (entry[0], parse_element_score(entry[1]))


def listed(members: list[Member], resp: int, *, with_scores: bool) -> bytes:
    """Members, with their scores if wanted: pairs in RESP3, one after the other in RESP2."""
    return _header(len(members), resp, with_scores=with_scores) + _shown(members, resp, with_scores=with_scores)


async def listed_in_turns(count: int, members: Iterator[Member], resp: int, *, with_scores: bool) -> bytes:
    """The same of `count` members of a big set, of which there may be millions."""
    parts = [_header(count, resp, with_scores=with_scores)]
    while some := list(islice(members, STEPS_PER_TURN)):
        parts.append(_shown(some, resp, with_scores=with_scores))
        if len(some) == STEPS_PER_TURN:
            await asyncio.sleep(0)
    return b"".join(parts)


def _header(count: int, resp: int, *, with_scores: bool) -> bytes:
    return array(2 * count if with_scores and resp == 2 else count)


def _shown(members: list[Member], resp: int, *, with_scores: bool) -> bytes:
    if not with_scores:
        return b"".join([bulk(member) for member, _ in members])
    pair = array(2) if resp == 3 else b""
    return b"".join([pair + bulk(member) + double(score, resp) for member, score in members])
