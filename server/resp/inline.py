r"""Inline commands: one line of words as a person types them, with Redis' quoting (sdssplitargs).

Rules:
- Words stand between white space; `"..."` knows \n \r \t \b \a \xHH and `\` before any other byte; `'...'` knows only `\'`.
- A closing quote is followed by white space or the end of the line; anything else is unbalanced.
- A zero byte ends the line, as it ends a C string.
"""

from __future__ import annotations

import re

_SPACE = b" \t\n\v\f\r"
_WORD_END = frozenset(b" \t\n\r")  # without \v and \f, which are skipped between words but do not end one
_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_HEX = re.compile(rb"\\x([0-9a-fA-F]{2})")


def split_words(line: bytes) -> list[bytes] | None:
    """The words of a line; None if its quotes are unbalanced."""
    line = line.partition(b"\0")[0]
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACE:
            at += 1
        if at == len(line):
            return words
        found = _word(line, at)
        if found is None:
            return None
        word, at = found
        words.append(word)


def _word(line: bytes, at: int) -> tuple[bytes, int] | None:
    word = bytearray()
    while at < len(line) and line[at] not in _WORD_END:
        if line[at] in b"\"'":
            end = _quoted(line, at + 1, line[at], word)
            if end < 0 or (end < len(line) and line[end] not in _SPACE):
                return None
            return bytes(word), end
        word.append(line[at])
        at += 1
    return bytes(word), at


def _quoted(line: bytes, at: int, quote: int, word: bytearray) -> int:
    """Append what stands up to the closing quote; the place after it, or negative if there is none."""
    double = quote == ord('"')
    while at < len(line):
        byte = line[at]
        if byte == quote:
            return at + 1
        if byte == ord("\\") and at + 1 < len(line):
            following = line[at + 1]
            if double:
                as_hex = _HEX.match(line, at)
                word.append(int(as_hex[1], 16) if as_hex else _ESCAPES.get(following, following))
                at += 4 if as_hex else 2
                continue
            if following == quote:
                word.append(quote)
                at += 2
                continue
        word.append(byte)
        at += 1
    return -1
