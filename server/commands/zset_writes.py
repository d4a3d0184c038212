"""Members that come, move and go by name: ZADD, ZINCRBY, ZREM.

A small set is packed as long as Redis 7.0 keeps a listpack: up to `zset-max-listpack-entries` members of up to `zset-max-listpack-value`
bytes. Beyond that it is big, and stays so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from functools import partial

from pipeline.format.values import PACKED_BYTES_MAX, Flag, ValueType, encode_zset, expiry_ms
from server.commands.construction import Plan, write_whole
from server.commands.registry import Family, Keys
from server.commands.zadd import AddOptions, Outcome, Room, outcome_of, parse_add
from server.commands.zset_access import Member, raw_zset
from server.resp.replies import NULL, double, integer
from server.session import Session
from server.storage.big import BigCollection
from server.storage.live_zset import change_big, entries_of
from server.storage.packed import PackedZset, count
from server.storage.packed_zset import edited, members_of

FAMILY = Family("sorted-set", "sortedset")

MEMBERS_PER_TURN = 512  # looked up by one MultiGet between two turns of the loop: about 3 ms
PACKED_MEMBER_BYTES = 32  # of score, offset and the head of a bulk, at most: what a packed member takes beside its name

_BIG = int(Flag.BIG)


@FAMILY.command("zadd", -4, "write denyoom fast", Keys(1, 1, 1, "RW update"))
def zadd(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Add members, or give them other scores."""
    return _add(session, words[1], slot, *parse_add(words))


@FAMILY.command("zincrby", 4, "write denyoom fast", Keys(1, 1, 1, "RW access update"))
def zincrby(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Add to the score of a member."""
    return _add(session, words[1], slot, *parse_add(words, incr=True))


@FAMILY.command("zrem", -3, "write fast", Keys(1, 1, 1, "RW delete"))
def zrem(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Take members away; how many there were."""
    raw = raw_zset(session, words[1], slot)
    if raw is None:
        return integer(0)
    members = list(dict.fromkeys(words[2:]))
    if raw[1] & _BIG:
        big = session.big(words[1], slot, raw)
        if len(members) > MEMBERS_PER_TURN:
            return _remove_many(session, big, raw, members)
        return _remove_from_big(session, big, raw, _current(members, big.scores(members)))
    zset = PackedZset(raw)
    gone = [member for member in members if zset.rank(member) >= 0]
    if len(gone) == zset.count:
        session.engine.delete(words[1], slot)
    elif gone:
        session.engine.write(words[1], slot, edited(raw, dict.fromkeys(gone)))
    return integer(len(gone))


def _add(session: Session, key: bytes, slot: int, options: AddOptions, pairs: list[Member]) -> bytes | Awaitable[bytes]:
    raw = raw_zset(session, key, slot)
    if raw is not None and raw[1] & _BIG:
        big = session.big(key, slot, raw)
        members = list(dict(pairs))
        if len(members) > MEMBERS_PER_TURN:
            return _add_many(session, big, raw, options, pairs, members)
        return _add_to_big(session, big, raw, options, pairs, _current(members, big.scores(members)))
    current = {}
    if raw is not None:
        zset = PackedZset(raw)
        current = {member: zset.score(rank) for member, _ in pairs if (rank := zset.rank(member)) >= 0}
    config = session.services.config
    room = Room(config.zset_max_listpack_entries - (0 if raw is None else count(raw)), config.zset_max_listpack_value)
    outcome = outcome_of(options, pairs, current, room)
    if not outcome.changes:
        return _said(session, options, outcome)
    if outcome.packed and _fits(raw, outcome):
        session.engine.write(key, slot, encode_zset(outcome.changes.items()) if raw is None else edited(raw, outcome.changes))
        return _said(session, options, outcome)
    members_now = outcome.changes if raw is None else members_of(raw) | outcome.changes
    size = 2 * sum(map(len, members_now))
    plan = Plan(
        ValueType.ZSET, len(members_now), size, None if raw is None else expiry_ms(raw), partial(entries_of, key, slot, members_now)
    )
    return write_whole(session, key, slot, plan, _said(session, options, outcome))


def _fits(raw: bytes | None, outcome: Outcome) -> bool:
    """Whether one value may hold what the limits on members allow."""
    longer = sum(map(len, outcome.changes)) + PACKED_MEMBER_BYTES * len(outcome.changes)
    return (0 if raw is None else len(raw)) + longer <= PACKED_BYTES_MAX


def _said(session: Session, options: AddOptions, outcome: Outcome) -> bytes:
    if options.incr:
        return NULL[session.resp] if outcome.score is None else double(outcome.score, session.resp)
    return integer(outcome.added + outcome.updated if options.changed else outcome.added)


def _add_to_big(
    session: Session, big: BigCollection, raw: bytes, options: AddOptions, pairs: list[Member], current: dict[bytes, float]
) -> bytes:
    outcome = outcome_of(options, pairs, current, None)
    if outcome.changes:
        change_big(session.engine, big, raw, current, outcome.changes)
    return _said(session, options, outcome)


async def _add_many(
    session: Session, big: BigCollection, raw: bytes, options: AddOptions, pairs: list[Member], members: list[bytes]
) -> bytes:
    with session.services.gate.hold([big.user_key]):
        return _add_to_big(session, big, raw, options, pairs, await _looked_up(big, members))


def _remove_from_big(session: Session, big: BigCollection, raw: bytes, current: dict[bytes, float]) -> bytes:
    if current:
        change_big(session.engine, big, raw, current, dict.fromkeys(current))
    return integer(len(current))


async def _remove_many(session: Session, big: BigCollection, raw: bytes, members: list[bytes]) -> bytes:
    with session.services.gate.hold([big.user_key]):
        return _remove_from_big(session, big, raw, await _looked_up(big, members))


async def _looked_up(big: BigCollection, members: list[bytes]) -> dict[bytes, float]:
    """The scores of those that are there, in turns."""
    current: dict[bytes, float] = {}
    for first in range(0, len(members), MEMBERS_PER_TURN):
        some = members[first : first + MEMBERS_PER_TURN]
        current.update(_current(some, big.scores(some)))
        await asyncio.sleep(0)
    return current


def _current(members: Iterable[bytes], scores: Iterable[float | None]) -> dict[bytes, float]:
    return {member: score for member, score in zip(members, scores, strict=True) if score is not None}
