"""SCAN, HSCAN and ZSCAN: what they have in common, and cursors over the elements of one key.

A packed collection comes in one page, as from Redis. The cursor of a version's big one is a place in it and a mark of its build: elements
of versions never change, so every element comes exactly once. A cursor that meets another version is refused: the scan starts again.
The cursor of a live big one stands for the element to go on with (server/storage/cursors.py): whatever was there from the scan's beginning
to its end comes exactly once, however much changes around it.

::

    cursor := mark(16 bits) place(40 bits)      0 is the beginning, and the end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from zlib import crc32

from pipeline.format.keys import Kind
from server.commands.arguments import integer
from server.resp import texts
from server.resp.replies import ReplyError, array, bulk
from server.storage.big import BigCollection, Entry, gathered
from server.storage.cursors import Cursors

COUNT_DEFAULT = 10  # as in Redis
COUNT_MAX = 10_000  # elements of one page, whatever a client asks for: about 10 ms, as the page is put together in one turn

_PLACE_BITS = 40
_CURSOR = re.compile(rb"([+-]?)0*([0-9]{1,20})|")  # what C's strtoul takes, but for leading spaces
_CURSORS_END = 1 << 64


@dataclass(frozen=True, slots=True)
class Page:
    """What a client asked for."""

    cursor: int
    count: int
    pattern: re.Pattern[bytes] | None
    type: bytes | None = None  # of SCAN alone; lower case

    def matches(self, name: bytes) -> bool:
        """Whether an element is wanted."""
        return self.pattern is None or self.pattern.fullmatch(name) is not None


def parse_page(words: list[bytes], *, cursor_at: int = 2, typed: bool = False) -> Page:
    """Cursor and options; `typed`: with TYPE among them.

    Raises:
        ReplyError: one of them is none.
    """
    cursor = parse_cursor(words[cursor_at])
    count, pattern, kind = COUNT_DEFAULT, None, None
    options = words[cursor_at + 1 :]
    while options:
        name, value, *options = options if len(options) > 1 else (b"", b"")
        if name.lower() == b"count":
            count = integer(value)
            if count < 1:
                raise ReplyError(texts.SYNTAX)
        elif name.lower() == b"match":
            pattern = None if value == b"*" else glob(value)
        elif name.lower() == b"type" and typed:
            kind = value.lower()
        else:
            raise ReplyError(texts.SYNTAX)
    return Page(cursor, min(count, COUNT_MAX), pattern, kind)


def parse_cursor(word: bytes) -> int:
    """A cursor as Redis reads it: an empty word is 0, a negative number counts from the end of 64 bits.

    Raises:
        ReplyError: it is none.
    """
    found = _CURSOR.fullmatch(word.partition(b"\0")[0])
    number = int(found[2] or b"0") if found else _CURSORS_END
    if number >= _CURSORS_END:
        raise ReplyError(texts.INVALID_CURSOR)
    return -number % _CURSORS_END if found and found[1] == b"-" else number


async def scan_big(big: BigCollection, page: Page, shown: Callable[[Entry], tuple[bytes, bytes]]) -> bytes:
    """One page of a big collection; `shown` makes two bulks of an element.

    Raises:
        ReplyError: the cursor is of another version.
    """
    mark = crc32((big.build_id or str(big.version)).encode()) & 0xFFFF
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


async def scan_live(cursors: Cursors, big: BigCollection, kind: Kind, page: Page, shown: Callable[[Entry], tuple[bytes, bytes]]) -> bytes:
    """One page of a live big collection, by elements of a kind; a cursor that is not known any more starts from the beginning."""
    head = big.head(kind)
    position = cursors.find(page.cursor) if page.cursor else None
    start = position[len(head) :] if position is not None and position.startswith(head) else b""
    entries = await gathered(big.walk(kind, start), 0, page.count + 1)
    cursor = cursors.keep(head + entries.pop()[0]) if len(entries) > page.count else 0
    return page_reply(cursor, [pair for pair in map(shown, entries) if page.matches(pair[0])])


def page_reply(cursor: int, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The cursor to go on with, and the elements of this page."""
    bulks = [bulk(part) for pair in pairs for part in pair]
    return array(2) + bulk(b"%d" % cursor) + array(len(bulks)) + b"".join(bulks)


def keys_reply(cursor: int, keys: list[bytes]) -> bytes:
    """The same for keys."""
    return array(2) + bulk(b"%d" % cursor) + array(len(keys)) + b"".join(map(bulk, keys))


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Redis' glob-style patterns: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and a backslash before a character that stands for itself.

    What stands between two stars is taken where it is found first, for good: going back would find nothing that going on does not, and
    takes for ever with some dozens of stars.
    """
    parts, made, place = [], b"", 0
    while place < len(pattern):
        one = pattern[place : place + 1]
        if one == b"[":
            part, place = _set(pattern, place + 1)
            made += part
            continue
        if one == b"\\" and place + 1 < len(pattern):
            place += 1
            made += re.escape(pattern[place : place + 1])
        elif one == b"*":
            parts.append(made)
            made = b""
        else:
            made += b"." if one == b"?" else re.escape(one)
        place += 1
    if parts:
        first, *between = parts
        made = first + b"".join(b"(?>.*?%b)" % part for part in between if part) + b".*" + made
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
