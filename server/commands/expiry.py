"""Moments at which keys expire: read from clients' words, in every unit that Redis has."""

from __future__ import annotations

from server.commands.arguments import INT64_MAX, INT64_MIN, integer
from server.resp import texts
from server.resp.replies import ReplyError

UNITS_MS = {b"ex": 1_000, b"px": 1, b"exat": 1_000, b"pxat": 1}
RELATIVE = frozenset({b"ex", b"px"})


def future_ms(command: str, unit: bytes, amount: bytes, now_ms: int) -> int:
    """The moment, in ms since the epoch, of an option such as `EX 10`.

    Raises:
        ReplyError: not a positive integer, or beyond 64 bits.
    """
    unit_ms, number = UNITS_MS[unit], integer(amount)
    base = now_ms if unit in RELATIVE else 0
    if number <= 0 or number > INT64_MAX // unit_ms or number * unit_ms > INT64_MAX - base:
        raise ReplyError(texts.invalid_expiry(command))
    return number * unit_ms + base


def any_ms(command: str, unit: bytes, amount: bytes, now_ms: int) -> int:
    """The same for EXPIRE and its like, where the moment may be past.

    Raises:
        ReplyError: not an integer, or beyond 64 bits.
    """
    unit_ms, number = UNITS_MS[unit], integer(amount)
    base = now_ms if unit in RELATIVE else 0
    if not -(-INT64_MIN // unit_ms) <= number <= INT64_MAX // unit_ms or number * unit_ms > INT64_MAX - base:
        raise ReplyError(texts.invalid_expiry(command))
    return number * unit_ms + base
