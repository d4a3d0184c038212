"""Numbers as Redis reads them from a client's words."""

from __future__ import annotations

import math
import re

from server.resp.replies import ReplyError
from server.resp.texts import NOT_A_FLOAT, NOT_AN_INTEGER

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1
INT32_MAX = (1 << 31) - 1

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(rb"[ \t\n\v\f\r]*[+-]?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE)
_ZERO = re.compile(rb"[+-]?(?:0x)?[0.]*(?:[ep].*)?", re.IGNORECASE)
_HEXADECIMAL = re.compile(rb"[ \t\n\v\f\r]*[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?", re.IGNORECASE)


def integer(word: bytes, refusal: str = NOT_AN_INTEGER) -> int:
    """A canonical signed 64-bit integer: no sign but `-`, no leading zeros, no spaces.

    Raises:
        ReplyError: `word` is none; the reply is `refusal`.
    """
    if _INTEGER.fullmatch(word):
        number = int(word)
        if INT64_MIN <= number <= INT64_MAX:
            return number
    raise ReplyError(refusal)


def c_double(word: bytes) -> float | None:
    """What C's strtod makes of the whole of `word`: an empty word is 0, hexadecimal and `inf` count; None if it is no number, or NaN."""
    word = word.partition(b"\0")[0]
    if not word:
        return 0.0
    if _DECIMAL.fullmatch(word):
        return float(word)
    if _HEXADECIMAL.fullmatch(word):
        try:
            return float.fromhex(word.decode())
        except OverflowError:
            return math.copysign(math.inf, -1 if word.lstrip().startswith(b"-") else 1)
    return None


def double(word: bytes) -> float:
    """A double as Redis 7.0 takes scores: no spaces around it, never empty, never NaN, and neither infinite nor zero by rounding.

    Raises:
        ReplyError: `word` is none.
    """
    number = None if not word or word[:1].isspace() or b"\0" in word else c_double(word)
    if number is None or (math.isinf(number) and b"i" not in word.lower()) or (number == 0 and not _ZERO.fullmatch(word)):
        raise ReplyError(NOT_A_FLOAT)
    return number
