"""Glob patterns as Redis reads them. The cases are those of its own documentation, and the corners of its matcher."""

from __future__ import annotations

import pytest

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
