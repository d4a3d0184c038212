"""HSCAN and ZSCAN: cursors over the elements of one key.

A packed collection comes in one page, as from Redis. The cursor of a big one is a place in it and a mark of its build: elements of versions
never change, so every element comes exactly once. A cursor that meets another version is refused, and the scan starts again.

::

    cursor := mark(16 bits) place(40 bits)      0 is the beginning, and the end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from zlib import crc32

from server.commands.arguments import integer
from server.resp import texts
from server.resp.replies import ReplyError, array, bulk
from server.storage.big import BigCollection, Entry

COUNT_DEFAULT = 10  # as in Redis
COUNT_MAX = 100_000  # elements of one page, whatever a client asks for: about 50 ms of work, in turns

_PLACE_BITS = 40
_CURSOR = re.compile(rb"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Page:
    """What a client asked for."""

    cursor: int
    count: int
    pattern: re.Pattern[bytes] | None

    def matches(self, name: bytes) -> bool:
        """Whether an element is wanted."""
        return self.pattern is None or self.pattern.fullmatch(name) is not None


def parse_page(words: list[bytes]) -> Page:
    """Cursor and options of HSCAN and ZSCAN.

    Raises:
        ReplyError: one of them is none.
    """
    if not _CURSOR.fullmatch(words[2]) or int(words[2]) >= 1 << 64:
        raise ReplyError(texts.INVALID_CURSOR)
    count, pattern = COUNT_DEFAULT, None
    options = words[3:]
    while options:
        name, value, *options = options if len(options) > 1 else (b"", b"")
        if name.lower() == b"count":
            count = integer(value)
            if count < 1:
                raise ReplyError(texts.SYNTAX)
        elif name.lower() == b"match":
            pattern = None if value == b"*" else glob(value)
        else:
            raise ReplyError(texts.SYNTAX)
    return Page(int(words[2]), min(count, COUNT_MAX), pattern)


async def scan_big(big: BigCollection, page: Page, shown: Callable[[Entry], tuple[bytes, bytes]]) -> bytes:
    """One page of a big collection; `shown` makes two bulks of an element.

    Raises:
        ReplyError: the cursor is of another version.
    """
    mark = crc32(big.build_id.encode()) & 0xFFFF
    first = page.cursor & ((1 << _PLACE_BITS) - 1)
    if page.cursor and page.cursor >> _PLACE_BITS != mark:
        raise ReplyError(texts.CURSOR_OF_ANOTHER_VERSION)
    end = min(first + page.count, big.count)
    if first >= end:
        return page_reply(0, [])
    with big:
        entries = await big.between(first, end)
    pairs = map(shown, entries)
    return page_reply(0 if end == big.count else mark << _PLACE_BITS | end, [pair for pair in pairs if page.matches(pair[0])])


def page_reply(cursor: int, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The cursor to go on with, and the elements of this page."""
    bulks = [bulk(part) for pair in pairs for part in pair]
    return array(2) + bulk(b"%d" % cursor) + array(len(bulks)) + b"".join(bulks)


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Redis' glob-style patterns: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and a backslash before a character that stands for itself."""
    made, place = b"", 0
    while place < len(pattern):
        one = pattern[place : place + 1]
        if one == b"[":
            part, place = _set(pattern, place + 1)
            made += part
            continue
        if one == b"\\" and place + 1 < len(pattern):
            place += 1
            made += re.escape(pattern[place : place + 1])
        elif one != b"*" or not made.endswith(b".*"):
            made += {b"*": b".*", b"?": b"."}.get(one, re.escape(one))
        place += 1
    return re.compile(made, re.DOTALL)


def _set(pattern: bytes, place: int) -> tuple[bytes, int]:
    """A set of characters, and where the pattern goes on. One that is not closed ends with the pattern, as in Redis."""
    negated = pattern[place : place + 1] == b"^"
    place += negated
    members: list[bytes] = []
    while place < len(pattern) and pattern[place : place + 1] != b"]":
        if pattern[place : place + 1] == b"\\" and place + 1 < len(pattern):
            place += 1
            members.append(re.escape(pattern[place : place + 1]))
            place += 1
        elif pattern[place + 1 : place + 2] == b"-" and place + 2 < len(pattern):
            low, high = sorted((pattern[place], pattern[place + 2]))
            members.append(re.escape(bytes((low,))) + b"-" + re.escape(bytes((high,))))
            place += 3
        else:
            members.append(re.escape(pattern[place : place + 1]))
            place += 1
    inside = b"".join(members)
    if not inside:
        return (b"." if negated else b"(?!)"), place + 1
    return b"[" + (b"^" if negated else b"") + inside + b"]", place + 1
