"""ZRANGE's arguments: options, and bounds by score and by name, of packed sorted sets and of big ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum

from pipeline.format.keys import Kind, sortable_score
from server.commands.arguments import c_double, integer
from server.resp import texts
from server.resp.replies import ReplyError
from server.storage.packed import PackedZset

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


@dataclass(frozen=True, slots=True)
class ScoreBounds:
    """From one score to another; `above` and `below` leave the scores themselves out."""

    least: float
    above: bool
    most: float
    below: bool

    def __call__(self, zset: PackedZset) -> tuple[int, int]:
        """The first rank within, and the first rank beyond."""
        scores = zset.scores(0, zset.count)
        first = (bisect_right if self.above else bisect_left)(scores, self.least)
        end = (bisect_left if self.below else bisect_right)(scores, self.most)
        return first, end

    def of_big(self) -> tuple[Kind, bytes, bytes | None]:
        """The same as elements of a big sorted set: their kind, and between which they lie (None: to the end)."""
        return Kind.ZSET_RANK, _side(self.least, after=self.above), _side(self.most, after=not self.below)


@dataclass(frozen=True, slots=True)
class LexBounds:
    """From one name to another: each a side (-1 below all names, 1 above all, 0 a name), the name, and whether it is within."""

    low: tuple[int, bytes, bool]
    high: tuple[int, bytes, bool]

    def __call__(self, zset: PackedZset) -> tuple[int, int]:
        """The first rank within, and the first rank beyond."""
        members = range(zset.count)
        low_side, low_name, with_low = self.low
        high_side, high_name, with_high = self.high
        first = (bisect_left if with_low else bisect_right)(members, (low_side, low_name), key=lambda rank: (0, zset.member(rank)))
        end = (bisect_right if with_high else bisect_left)(members, (high_side, high_name), key=lambda rank: (0, zset.member(rank)))
        return first, end

    def of_big(self) -> tuple[Kind, bytes, bytes | None]:
        """As for scores. A range of names is meant for equal scores, where members lie as ranks do."""
        (low_side, low_name, with_low), (high_side, high_name, with_high) = self.low, self.high
        start = b"" if low_side < 0 else low_name if with_low else low_name + b"\x00"
        end = None if high_side > 0 else high_name + b"\x00" if with_high else high_name
        if low_side > 0 or high_side < 0:
            start, end = b"\x00", b""  # nothing lies above all names, or below
        return Kind.ZSET_MEMBER, start, end


def _side(score: float, *, after: bool) -> bytes:
    """Where the members of a score begin, or where they are over."""
    place = sortable_score(score)
    return (int.from_bytes(place) + 1).to_bytes(len(place)) if after else place


def score_bounds(low: bytes, high: bytes) -> ScoreBounds:
    """Bounds by score; `(` before a number leaves it out.

    Raises:
        ReplyError: one of them is no number.
    """
    least, above = _score(low)
    most, below = _score(high)
    return ScoreBounds(least, above, most, below)


def lex_bounds(low: bytes, high: bytes) -> LexBounds:
    """Bounds by name: `[name`, `(name`, `-` and `+`.

    Raises:
        ReplyError: one of them is none of these.
    """
    return LexBounds(_name(low), _name(high))


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
