"""Commands written as lines, as a person types them."""

from __future__ import annotations

import shlex


def words_of(line: str) -> list[bytes]:
    """The words of a line, with shell quotes and Python's escapes."""
    return [word.encode().decode("unicode_escape").encode("latin-1") for word in shlex.split(line, posix=True)]
