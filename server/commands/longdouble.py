"""Sums as Redis makes them: in C's long double of x86, 64 bits of mantissa, rounded to even, printed with at most 17 decimals.

Python has no such type, so numbers are exact fractions that are rounded where C rounds: when a text is read, and after the sum.
"""

from __future__ import annotations

import re
from fractions import Fraction

from server.resp import texts
from server.resp.replies import ReplyError

MANTISSA_BITS = 64
EXPONENT_MAX = 16_384  # the largest finite value is below 2**EXPONENT_MAX
EXPONENT_MIN = -16_445  # the smallest positive one
TEXT_BYTES_MAX = 5 * 1024  # Redis reads no longer one
DECIMALS = 17

_DIGITS_AT_ONCE = 4_000

_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e([+-]?[0-9]+))?", re.IGNORECASE)
_HEXADECIMAL = re.compile(rb"([+-]?)0x([0-9a-f]*)(?:\.([0-9a-f]*))?(?:p([+-]?[0-9]+))?", re.IGNORECASE)
_INFINITE = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)


def add(one: bytes, other: bytes) -> bytes:
    """The sum of two numbers as text.

    Raises:
        ReplyError: one of them is no number, or the sum is beyond all.
    """
    return total(parse(one), parse(other))


def total(left: Fraction | None, right: Fraction | None) -> bytes:
    """The sum of two numbers that `parse` read, as text.

    Raises:
        ReplyError: one of them is infinite, or the sum is beyond all.
    """
    if left is None or right is None:
        raise ReplyError(texts.INCREMENT_NOT_FINITE)
    number = _rounded(left + right)
    if abs(number) >= 1 << EXPONENT_MAX:
        raise ReplyError(texts.INCREMENT_NOT_FINITE)
    return _printed(number)


def parse(text: bytes) -> Fraction | None:
    """The number that strtold reads; None for an infinite one.

    Raises:
        ReplyError: `text` is no number.
    """
    if len(text) >= TEXT_BYTES_MAX:
        raise ReplyError(texts.NOT_A_FLOAT)
    if _INFINITE.fullmatch(text):
        return None
    exact = _exact(text)
    number = _rounded(exact)
    if abs(number) >= 1 << EXPONENT_MAX or (exact and abs(exact) < Fraction(1, 1 << -EXPONENT_MIN)):
        raise ReplyError(texts.NOT_A_FLOAT)
    return number


def _exact(text: bytes) -> Fraction:
    decimal = _DECIMAL.fullmatch(text)
    if decimal:
        if decimal[1] and abs(int(decimal[1])) > TEXT_BYTES_MAX + EXPONENT_MAX:
            return _beyond(text, int(decimal[1]))
        return Fraction(text.decode())
    hexadecimal = _HEXADECIMAL.fullmatch(text)
    if hexadecimal is None or not (hexadecimal[2] or hexadecimal[3]):
        raise ReplyError(texts.NOT_A_FLOAT)
    sign, whole, part, exponent = hexadecimal.groups(b"")
    power = int(exponent or b"0")
    digits = int(whole + part or b"0", 16)
    if abs(power) > 4 * TEXT_BYTES_MAX + EXPONENT_MAX + -EXPONENT_MIN:
        return _beyond(b"%d" % digits, power)
    return Fraction(digits) * Fraction(2) ** (power - 4 * len(part)) * (-1 if sign == b"-" else 1)


def _beyond(text: bytes, power: int) -> Fraction:
    """A number whose exponent alone puts it out of range, without making all of its digits."""
    digits = re.split(rb"[eE]", text)[0]
    if not digits.strip(b"+-0."):
        return Fraction(0)
    return Fraction(1 << EXPONENT_MAX) if power > 0 else Fraction(1, 1 << (1 - EXPONENT_MIN))


def _rounded(exact: Fraction) -> Fraction:
    """To MANTISSA_BITS, half to even."""
    if not exact:
        return exact
    shift = abs(exact.numerator).bit_length() - exact.denominator.bit_length() - MANTISSA_BITS
    shift = max(shift, EXPONENT_MIN)
    number = round(exact / Fraction(2) ** shift)
    while abs(number) >= 1 << MANTISSA_BITS:  # the guess of the exponent may be one too low
        shift += 1
        number = round(exact / Fraction(2) ** shift)
    return number * Fraction(2) ** shift


def _printed(number: Fraction) -> bytes:
    scaled = round(abs(number) * 10**DECIMALS)
    whole, part = divmod(scaled, 10**DECIMALS)
    decimals = (b"%017d" % part).rstrip(b"0")
    text = b"%b.%b" % (_digits(whole), decimals) if decimals else _digits(whole)
    return b"-" + text if number < 0 and scaled else text


def _digits(whole: int) -> bytes:
    """As `%d`, which Python refuses for more than some 4,300 digits at once."""
    above, below = divmod(whole, 10**_DIGITS_AT_ONCE)
    return b"%b%0*d" % (_digits(above), _DIGITS_AT_ONCE, below) if above else b"%d" % below
