"""Sorted sets, member by member: ZSCORE, ZMSCORE, ZCARD, ranks, ZRANDMEMBER, ZSCAN."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Sequence

from pipeline.format.keys import Kind
from pipeline.format.values import parse_element_score, score_text
from server.commands.arguments import INT64_MAX
from server.commands.arguments import integer as to_integer
from server.commands.registry import LOOKS_AT_KEY, READS_KEY, Family
from server.commands.scanning import page_reply, parse_cursor, parse_page, scan_big, scan_live
from server.commands.zset_access import Member, listed, listed_in_turns, read_zset
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, NULL, ReplyError, array, bulk, double, integer
from server.session import Session
from server.storage.big import BigCollection, Entry, ranked
from server.storage.big_zset import at_ranks, rank_of
from server.storage.packed import PackedZset

FAMILY = Family("sorted-set", "sortedset")

LISTPACK_INTEGER_MAX = 1 << 62  # of scores that Redis holds as integers
PICKS_MAX = 1 << 20  # members that ZRANDMEMBER repeats at most: one reply is held in memory


@FAMILY.command("zscore", 3, "readonly fast", READS_KEY)
def zscore(session: Session, words: list[bytes], slot: int) -> bytes:
    """The score of a member."""
    return _scores(session, words, slot)[0]


@FAMILY.command("zmscore", -3, "readonly fast", READS_KEY)
def zmscore(session: Session, words: list[bytes], slot: int) -> bytes:
    """The scores of some members."""
    return array(len(words) - 2) + b"".join(_scores(session, words, slot))


@FAMILY.command("zcard", 2, "readonly fast", LOOKS_AT_KEY)
def zcard(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many members a sorted set has."""
    zset = read_zset(session, words[1], slot)
    return integer(0 if zset is None else zset.count)


@FAMILY.command("zrank", 3, "readonly fast", READS_KEY)
def zrank(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """The rank of a member, counted from the lowest score."""
    return _rank(session, words, slot, reverse=False)


@FAMILY.command("zrevrank", 3, "readonly fast", READS_KEY)
def zrevrank(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """The rank of a member, counted from the highest score."""
    return _rank(session, words, slot, reverse=True)


@FAMILY.command("zrandmember", -2, "readonly", READS_KEY, tips="nondeterministic_output")
def zrandmember(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """One member, or some, by chance: distinct ones, or, by a negative count, any."""
    single = len(words) == 2
    number, with_scores = (1, False) if single else _pick_options(words)
    zset = read_zset(session, words[1], slot)
    if zset is None or not number:
        return NULL[session.resp] if single else EMPTY_ARRAY
    ranks = _chosen(zset.count, number)
    if isinstance(zset, BigCollection):
        return _picked_of_big(zset, ranks, session.resp, single=single, with_scores=with_scores)
    return _picked([(zset.member(rank), zset.score(rank)) for rank in ranks], session.resp, single=single, with_scores=with_scores)


@FAMILY.command("zscan", -3, "readonly", READS_KEY, tips="nondeterministic_output")
def zscan(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Members and scores, page by page."""
    parse_cursor(words[2])
    zset = read_zset(session, words[1], slot)
    if zset is None:
        return page_reply(0, [])  # Redis looks at the options only then
    page = parse_page(words)
    if isinstance(zset, PackedZset):
        pairs = [(zset.member(rank), _packed_score(zset.score(rank))) for rank in range(zset.count)]
        return page_reply(0, [pair for pair in pairs if page.matches(pair[0])])
    if zset.build_id is None:
        return scan_live(session.services.cursors, zset, Kind.ZSET_MEMBER, page, _scanned_member)
    return scan_big(zset, page, lambda entry: _scanned(ranked(entry)))


def _scores(session: Session, words: list[bytes], slot: int) -> list[bytes]:
    zset = read_zset(session, words[1], slot)
    members, null, resp = words[2:], NULL[session.resp], session.resp
    if zset is None:
        return [null] * len(members)
    if isinstance(zset, BigCollection):
        return [null if score is None else double(score, resp) for score in zset.scores(members)]
    return [null if rank < 0 else double(zset.score(rank), resp) for rank in map(zset.rank, members)]


def _rank(session: Session, words: list[bytes], slot: int, *, reverse: bool) -> bytes | Awaitable[bytes]:
    zset = read_zset(session, words[1], slot)
    if zset is None:
        return NULL[session.resp]
    if isinstance(zset, BigCollection):
        score = zset.score(words[2])
        return NULL[session.resp] if score is None else _rank_in_big(zset, (words[2], score), reverse=reverse)
    rank = zset.rank(words[2])
    return NULL[session.resp] if rank < 0 else integer(zset.count - 1 - rank if reverse else rank)


async def _rank_in_big(big: BigCollection, member: Member, *, reverse: bool) -> bytes:
    with big:
        rank = await rank_of(big, *member)
    return integer(big.count - 1 - rank if reverse else rank)


def _pick_options(words: list[bytes]) -> tuple[int, bool]:
    number = to_integer(words[2])
    if number < -INT64_MAX:
        raise ReplyError(texts.OUT_OF_SYMMETRIC_RANGE)
    with_scores = len(words) == 4 and words[3].lower() == b"withscores"
    if len(words) > 3 and not with_scores:
        raise ReplyError(texts.SYNTAX)
    if number < -PICKS_MAX or (with_scores and number > INT64_MAX // 2):
        raise ReplyError(texts.OUT_OF_RANGE)
    return number, with_scores


def _chosen(count: int, number: int) -> Sequence[int]:
    """Ranks by chance; all of them as Redis lists them, from the last."""
    if number < 0:
        return random.choices(range(count), k=-number)
    return range(count - 1, -1, -1) if number >= count else random.sample(range(count), number)


async def _picked_of_big(big: BigCollection, ranks: Sequence[int], resp: int, *, single: bool, with_scores: bool) -> bytes:
    with big:
        found = await at_ranks(big, ranks)
    if single:
        return bulk(found[ranks[0]][0])
    return await listed_in_turns(len(ranks), (found[rank] for rank in ranks), resp, with_scores=with_scores)


def _picked(members: list[Member], resp: int, *, single: bool, with_scores: bool) -> bytes:
    return bulk(members[0][0]) if single else listed(members, resp, with_scores=with_scores)


def _packed_score(score: float) -> bytes:
    """A listpack of Redis holds whole numbers as such, and ZSCAN sends what it holds."""
    return b"%d" % score if score.is_integer() and abs(score) <= LISTPACK_INTEGER_MAX else score_text(score)


def _scanned(member: Member) -> tuple[bytes, bytes]:
    return member[0], score_text(member[1])


def _scanned_member(entry: Entry) -> tuple[bytes, bytes]:
    return entry[0], score_text(parse_element_score(entry[1]))
