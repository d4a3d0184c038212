"""Replies as bytes, in RESP2 and RESP3. The only place where they are made; stored bulks are passed on as they are.

Rules:
- `resp` is the protocol version of the connection, 2 or 3.
- An error is one line: CR and LF in its text become spaces, as in Redis.
- `encode` is for replies with structure, off the hot path; the rest of the functions are the pieces of quick replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.format.values import bulk, score_text

__all__ = [
    "EMPTY_ARRAY",
    "NULL",
    "NULL_ARRAY",
    "OK",
    "ReplyError",
    "ReplySet",
    "Simple",
    "Verbatim",
    "array",
    "bulk",
    "double",
    "encode",
    "error",
    "integer",
    "map_header",
    "simple",
]

SMALL_MAX = 1_024  # headers and integers up to here are made once

OK = b"+OK\r\n"
EMPTY_ARRAY = b"*0\r\n"
NULL_ARRAY = {2: b"*-1\r\n", 3: b"_\r\n"}
NULL = {2: b"$-1\r\n", 3: b"_\r\n"}

_ARRAYS = [b"*%d\r\n" % count for count in range(SMALL_MAX)]
_MAPS = [b"%%%d\r\n" % count for count in range(SMALL_MAX)]
_INTEGERS = [b":%d\r\n" % number for number in range(SMALL_MAX)]
_ONE_LINE = str.maketrans("\r\n", "  ")


class ReplyError(Exception):
    """A command ends with this error reply; `text` comes from texts.py."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Simple(str):
    """A string that `encode` sends as a simple string."""

    __slots__ = ()


class ReplySet(tuple[Any, ...]):
    """Distinct parts without an order: a set in RESP3, an array in RESP2."""

    __slots__ = ()


class Verbatim(str):
    """A text for people: a verbatim string in RESP3, a bulk string in RESP2."""

    __slots__ = ()


def simple(text: str) -> bytes:
    """A simple string."""
    return b"+%b\r\n" % text.encode()


def error(text: str) -> bytes:
    """An error; bytes of the client in it leave as they came (see texts.py)."""
    return b"-%b\r\n" % text.translate(_ONE_LINE).encode(errors="surrogateescape")


def integer(number: int) -> bytes:
    """An integer."""
    return _INTEGERS[number] if 0 <= number < SMALL_MAX else b":%d\r\n" % number


def array(count: int) -> bytes:
    """The header of an array."""
    return _ARRAYS[count] if count < SMALL_MAX else b"*%d\r\n" % count


def map_header(pairs: int, resp: int) -> bytes:
    """The header of a map, which is a flat array in RESP2."""
    if resp == 2:
        return array(2 * pairs)
    return _MAPS[pairs] if pairs < SMALL_MAX else b"%%%d\r\n" % pairs


def double(number: float, resp: int) -> bytes:
    """A double: a bulk string in RESP2. Redis 7.0 prints %.17g in both."""
    text = score_text(number)
    return bulk(text) if resp == 2 else b",%b\r\n" % text


def encode(value: Any, resp: int) -> bytes:  # noqa: C901 -- one case per kind of reply
    """Any reply: None, bool (as an integer), int, float, bytes, str, Simple, Verbatim, sequences and mappings of these.

    Raises:
        TypeError: no reply can be made of it.
    """
    match value:
        case None:
            return NULL[resp]
        case int():
            return integer(int(value))
        case float():
            return double(value, resp)
        case bytes():
            return bulk(value)
        case Simple():
            return simple(value)
        case Verbatim():
            raw = value.encode()
            return bulk(raw) if resp == 2 else b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw)
        case str():
            return bulk(value.encode())
        case Mapping():
            parts = (encode(part, resp) for pair in value.items() for part in pair)
            return map_header(len(value), resp) + b"".join(parts)
        case ReplySet() if resp == 3:
            return b"~%d\r\n" % len(value) + b"".join(encode(part, resp) for part in value)
        case Sequence():
            return array(len(value)) + b"".join(encode(part, resp) for part in value)
    raise TypeError(f"no reply can be made of {type(value).__name__}")
