"""Glob patterns as Redis reads them. The cases are those of its own documentation, and the corners of its matcher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.commands.scanning import glob


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (b"h?llo", b"hello", True),
        (b"h?llo", b"hllo", False),
        (b"h*llo", b"heeeello", True),
        (b"h[ae]llo", b"hillo", False),
        (b"h[^e]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-b]llo", b"hbllo", True),
        (b"h[b-a]llo", b"hbllo", True),
        (b"\\*", b"*", True),
        (b"\\*", b"x", False),
        (b"[\\]]", b"]", True),
        (b"[abc", b"c", True),
        (b"a.c", b"abc", False),
        (b"*", b"\n\x00", True),
        (b"", b"", True),
        (b"x**y", b"xy", True),
        (b"[^", b"q", True),
        (b"[]x", b"x", False),
    ],
)
def test_a_pattern(pattern: bytes, text: bytes, matches: bool) -> None:
    assert (glob(pattern).fullmatch(text) is not None) is matches


def by_the_book(pattern: bytes, text: bytes) -> bool:
    """Stars and single characters, as slowly as they are defined."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(by_the_book(pattern[1:], text[place:]) for place in range(len(text) + 1))
    return bool(text) and pattern[:1] in (b"?", text[:1]) and by_the_book(pattern[1:], text[1:])


@given(pattern=st.text("ab?*", max_size=8), text=st.text("ab", max_size=10))
def test_stars_match_what_they_should(pattern: str, text: str) -> None:
    assert (glob(pattern.encode()).fullmatch(text.encode()) is not None) is by_the_book(pattern.encode(), text.encode())


def test_a_pattern_of_many_stars_comes_to_an_end() -> None:
    assert glob(b"*a" * 500 + b"*b").fullmatch(b"a" * 60_000) is None
