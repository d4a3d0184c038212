"""The slow log: the last commands that took long, newest first, as SLOWLOG GET shows them.

Rules:
- Every run of commands (server/executor.py) is timed. One that took at least `slowlog-log-slower-than` is kept: a single command as Redis
  keeps it. Of several there is only the time of all together, which is what their client waited for: such an entry has each command in one
  argument.
- What is kept is cut as in Redis: 32 arguments of 128 bytes. So the log holds at most `slowlog-max-len` times 4 KiB.
- Passwords are not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from server.config import RuntimeConfig

WORDS_MAX = 32  # Redis' SLOWLOG_ENTRY_MAX_ARGC
WORD_BYTES_MAX = 128  # Redis' SLOWLOG_ENTRY_MAX_STRING
REDACTED = b"(redacted)"

_SECRET_PARAMETERS = frozenset({b"requirepass", b"masterauth", b"masteruser", b"tls-key-file-pass"})


@dataclass(frozen=True, slots=True)
class SlowEntry:
    """One slow command, or run of commands."""

    number: int
    at_s: int
    took_us: int
    words: tuple[bytes, ...]
    peer: str
    name: bytes


class SlowLog:
    """The slow log of one shard."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._entries: deque[SlowEntry] = deque()
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, commands: list[list[bytes]], took_us: int, at_s: int, peer: str, name: bytes) -> None:
        """Keep a run; the oldest entries go when there are too many."""
        words = commands[0] if len(commands) == 1 else [b" ".join(_shown(one)) for one in islice(commands, WORDS_MAX)]
        more = len(commands) - WORDS_MAX if len(commands) > 1 else 0
        shown = _shown(words) if more <= 0 else [*_shown(words[:-1]), b"... (%d more commands)" % (more + 1)]
        self._entries.appendleft(SlowEntry(self._number, at_s, took_us, tuple(shown), peer, name))
        self._number += 1
        while len(self._entries) > self._config.slowlog_max_len:
            self._entries.pop()

    def newest(self, count: int) -> Iterator[SlowEntry]:
        """The newest entries; all of them if `count` is negative."""
        return islice(self._entries, count if count >= 0 else None)

    def clear(self) -> None:
        """Forget all entries; numbers go on."""
        self._entries.clear()


def _shown(words: list[bytes]) -> list[bytes]:
    words = _without_secrets(words)
    if len(words) > WORDS_MAX:
        return [*(_cut(word) for word in words[: WORDS_MAX - 1]), b"... (%d more arguments)" % (len(words) - WORDS_MAX + 1)]
    return [_cut(word) for word in words]


def _cut(word: bytes) -> bytes:
    return word if len(word) <= WORD_BYTES_MAX else b"%b... (%d more bytes)" % (word[:WORD_BYTES_MAX], len(word) - WORD_BYTES_MAX)


def _without_secrets(words: list[bytes]) -> list[bytes]:
    command = words[0].lower()
    if command == b"auth":
        return [words[0], *[REDACTED] * (len(words) - 1)]
    if command == b"hello":
        shown = list(words)
        for place in range(2, len(words)):
            if words[place].lower() == b"auth":
                shown[place + 1 : place + 3] = [REDACTED] * len(words[place + 1 : place + 3])
        return shown
    if command == b"config" and len(words) > 3:
        return [
            REDACTED if place % 2 and place > 2 and words[place - 1].lower() in _SECRET_PARAMETERS else word
            for place, word in enumerate(words)
        ]
    return words
