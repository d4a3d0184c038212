"""ZRANGE's arguments: options, and bounds by score and by name, as functions from a packed sorted set to its ranks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from server.commands.arguments import c_double, integer
from server.resp import texts
from server.resp.replies import ReplyError
from server.storage.packed import PackedZset

Bounds = Callable[[PackedZset], tuple[int, int]]
"""From a sorted set to the first rank within, and the first rank beyond."""

NO_LIMIT = -1


class By(Enum):
    """What a range is a range of."""

    RANK = "rank"
    SCORE = "byscore"
    LEX = "bylex"


@dataclass(frozen=True, slots=True)
class RangeOptions:
    """`count` negative means all."""

    by: By
    reverse: bool
    with_scores: bool
    offset: int
    count: int


def parse_options(words: list[bytes]) -> RangeOptions:
    """The options after key and range.

    Raises:
        ReplyError: an option is unknown, repeated, or does not go with another.
    """
    by = None
    reverse = with_scores = False
    offset, count = 0, NO_LIMIT
    place = 4
    while place < len(words):
        name = words[place].lower()
        if name == b"withscores":
            with_scores = True
        elif name == b"limit" and place + 2 < len(words):
            offset, count = integer(words[place + 1]), integer(words[place + 2])
            place += 2
        elif name == b"rev" and not reverse:
            reverse = True
        elif name in (b"bylex", b"byscore") and by is None:
            by = By(name.decode())
        else:
            raise ReplyError(texts.SYNTAX)
        place += 1
    if count != NO_LIMIT and by is None:
        raise ReplyError(texts.LIMIT_WITHOUT_RANGE)
    if with_scores and by is By.LEX:
        raise ReplyError(texts.LEX_WITH_SCORES)
    return RangeOptions(by or By.RANK, reverse, with_scores, offset, count)


def score_bounds(low: bytes, high: bytes) -> Bounds:
    """Bounds by score; `(` before a number leaves it out.

    Raises:
        ReplyError: one of them is no number.
    """
    least, above = _score(low)
    most, below = _score(high)

    def ranks(zset: PackedZset) -> tuple[int, int]:
        scores = zset.scores(0, zset.count)
        first = (bisect_right if above else bisect_left)(scores, least)
        end = (bisect_left if below else bisect_right)(scores, most)
        return first, end

    return ranks


def lex_bounds(low: bytes, high: bytes) -> Bounds:
    """Bounds by name: `[name`, `(name`, `-` and `+`.

    Raises:
        ReplyError: one of them is none of these.
    """
    low_side, low_name, with_low = _name(low)
    high_side, high_name, with_high = _name(high)

    def ranks(zset: PackedZset) -> tuple[int, int]:
        members = range(zset.count)
        first = (bisect_left if with_low else bisect_right)(members, (low_side, low_name), key=lambda rank: (0, zset.member(rank)))
        end = (bisect_right if with_high else bisect_left)(members, (high_side, high_name), key=lambda rank: (0, zset.member(rank)))
        return first, end

    return ranks


def _score(word: bytes) -> tuple[float, bool]:
    exclusive = word.startswith(b"(")
    number = c_double(word[1:] if exclusive else word)
    if number is None:
        raise ReplyError(texts.MIN_MAX_NOT_FLOAT)
    return number, exclusive


def _name(word: bytes) -> tuple[int, bytes, bool]:
    """Side (-1 below all names, 1 above all, 0 a name), the name, and whether it is within the range."""
    if word in (b"-", b"+"):
        return (-1 if word == b"-" else 1), b"", False
    if word[:1] not in (b"[", b"("):
        raise ReplyError(texts.MIN_MAX_NOT_LEX)
    return 0, word[1:], word.startswith(b"[")
