"""The arguments of range commands on sorted sets: options, and bounds by score and by name, of packed sorted sets and of big ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import ClassVar

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


def parse_options(words: list[bytes], by: By | None = None, *, reverse: bool | None = None) -> RangeOptions:
    """The options after key and range; `by` and `reverse` are given where the command's name says them, and are no options then.

    Raises:
        ReplyError: an option is unknown, repeated, or does not go with another.
    """
    with_scores = False
    offset, count = 0, NO_LIMIT
    place = 4
    while place < len(words):
        name = words[place].lower()
        if name == b"withscores":
            with_scores = True
        elif name == b"limit" and place + 2 < len(words):
            offset, count = integer(words[place + 1]), integer(words[place + 2])
            place += 2
        elif name == b"rev" and reverse is None:
            reverse = True
        elif name in (b"bylex", b"byscore") and by is None:
            by = By(name.decode())
        else:
            raise ReplyError(texts.SYNTAX)
        place += 1
    by = by or By.RANK
    if count != NO_LIMIT and by is By.RANK:
        raise ReplyError(texts.LIMIT_WITHOUT_RANGE)
    if with_scores and by is By.LEX:
        raise ReplyError(texts.LEX_WITH_SCORES)
    return RangeOptions(by, bool(reverse), with_scores, offset, count)


@dataclass(frozen=True, slots=True)
class ScoreBounds:
    """From one score to another; `above` and `below` leave the scores themselves out."""

    kind: ClassVar = Kind.ZSET_RANK
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

    def limited(self, zset: PackedZset, options: RangeOptions) -> tuple[int, int]:
        """The part of the range that LIMIT leaves."""
        return _limited(*self(zset), options)

    def of_big(self) -> tuple[bytes, bytes | None]:
        """The same as elements of a big sorted set, of kind `kind`: between which they lie (None: to the end)."""
        return _side(self.least, after=self.above), _side(self.most, after=not self.below)


@dataclass(frozen=True, slots=True)
class LexBounds:
    """From one name to another: each a side (-1 below all names, 1 above all, 0 a name), the name, and whether it is within."""

    kind: ClassVar = Kind.ZSET_MEMBER
    low: tuple[int, bytes, bool]
    high: tuple[int, bytes, bool]

    def __call__(self, zset: PackedZset) -> tuple[int, int]:
        """The first rank within, and the first rank beyond. If scores differ, names are in no order, and what Redis makes of a packed set
        then is: from the first rank that is not below the range, as far as ranks are not beyond it.
        """
        if zset.score(0) != zset.score(zset.count - 1):
            return self._run(zset, 0, NO_LIMIT, reverse=False)
        ranks = range(zset.count)
        first = (bisect_left if self.low[2] else bisect_right)(ranks, self.low[:2], key=lambda rank: (0, zset.member(rank)))
        end = (bisect_right if self.high[2] else bisect_left)(ranks, self.high[:2], key=lambda rank: (0, zset.member(rank)))
        return first, end

    def limited(self, zset: PackedZset, options: RangeOptions) -> tuple[int, int]:
        """The part of the range that LIMIT leaves."""
        if options.offset >= 0 and zset.score(0) != zset.score(zset.count - 1):
            return self._run(zset, options.offset, options.count, reverse=options.reverse)
        return _limited(*self(zset), options)

    def _run(self, zset: PackedZset, offset: int, count: int, *, reverse: bool) -> tuple[int, int]:
        """Redis steps over `offset` members without looking at them."""
        if not self._above(zset.member(zset.count - 1)) or not self._below(zset.member(0)):
            return 0, 0
        ranks = range(zset.count - 1, -1, -1) if reverse else range(zset.count)
        begins, goes_on = (self._below, self._above) if reverse else (self._above, self._below)
        start = next((place for place, rank in enumerate(ranks) if begins(zset.member(rank))), len(ranks))
        if start == len(ranks) or not goes_on(zset.member(ranks[start])):
            return 0, 0
        within = list(takewhile(lambda rank: goes_on(zset.member(rank)), ranks[start + offset :]))
        within = within if count < 0 else within[:count]
        return (min(within), max(within) + 1) if within else (0, 0)

    def _above(self, member: bytes) -> bool:
        return (0, member) >= self.low[:2] if self.low[2] else (0, member) > self.low[:2]

    def _below(self, member: bytes) -> bool:
        return (0, member) <= self.high[:2] if self.high[2] else (0, member) < self.high[:2]

    def of_big(self) -> tuple[bytes, bytes | None]:
        """As for scores. A range of names is meant for equal scores, where members lie as ranks do; if they differ, it is by name alone."""
        (low_side, low_name, with_low), (high_side, high_name, with_high) = self.low, self.high
        start = b"" if low_side < 0 else low_name if with_low else low_name + b"\x00"
        end = None if high_side > 0 else high_name + b"\x00" if with_high else high_name
        if low_side > 0 or high_side < 0:
            start, end = b"\x00", b""  # nothing lies above all names, or below
        return start, end


Bounds = ScoreBounds | LexBounds


def bounds_of(by: By, low: bytes, high: bytes) -> Bounds:
    """Bounds by score or name.

    Raises:
        ReplyError: one of them is none.
    """
    return score_bounds(low, high) if by is By.SCORE else lex_bounds(low, high)


def _limited(first: int, end: int, options: RangeOptions) -> tuple[int, int]:
    """The part of a range that LIMIT leaves; a negative offset leaves nothing, a negative count everything, as in Redis."""
    if options.offset < 0:
        return first, first
    length = max(end - first - options.offset, 0)
    if options.count >= 0:
        length = min(length, options.count)
    start = end - options.offset - length if options.reverse else first + options.offset
    return start, start + length


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
    if word.partition(b"\0")[0] in (b"-", b"+"):
        return (-1 if word.startswith(b"-") else 1), b"", False
    if word[:1] not in (b"[", b"("):
        raise ReplyError(texts.MIN_MAX_NOT_LEX)
    return 0, word[1:], word.startswith(b"[")
