"""How often which command ran, failed and was refused, and about how long it takes.

Rules:
- Calls, failures, refusals and errors are exact. A call is counted by the command itself (server/commands/registry.py), where it runs.
- Times are estimates: every eighth run of a connection is timed as a whole (server/latency.py), and its time is shared evenly by its
  commands. A command that takes several turns of the loop is timed by itself, from its beginning to its reply.
- As in Redis, a command that was refused before it ran (its arity, its slot, no password, a dataset's key) is no call of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.format.admin import LATENCY_BUCKETS, latency_bucket, latency_top_ns

Words = list[bytes]
Resolve = Callable[[Words], str | None]
"""The full name of a command (`client|list`); None if it does not exist."""

REFUSALS = frozenset({"NOAUTH", "NOPERM", "MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN", "READONLY", "TRYAGAIN"})  # before the command runs
ERROR_PREFIX_CHARS_MAX = 32  # the longest of ours has 11
_REFUSED_ARITY = b"-ERR wrong number of arguments"


class Counted(Protocol):
    """What counts its calls: a command."""

    name: str
    calls: int


@dataclass(slots=True)
class Timed:
    """Samples of one command: how many, their nanoseconds in all, and counts by bucket (pipeline/format/admin.py)."""

    count: int = 0
    total_ns: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * LATENCY_BUCKETS)

    def add(self, ns: int, count: int = 1) -> None:
        """So many calls took so long each."""
        self.count += count
        self.total_ns += ns * count
        self.buckets[latency_bucket(ns)] += count

    def mean_us(self) -> float:
        """The mean in microseconds."""
        return self.total_ns / self.count / 1_000 if self.count else 0.0

    def percentile_us(self, percent: float) -> float:
        """The top of the bucket up to which so many percent of the samples lie, in microseconds."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return (latency_top_ns(bucket) - 1) / 1_000
        return 0.0


class CommandStats:
    """The counters of one shard."""

    def __init__(self, commands: Sequence[Counted], resolve: Resolve) -> None:
        self._commands = commands
        self._resolve = resolve
        self.failed: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.timed: dict[str, Timed] = {}

    def failed_with(self, words: Words, reply: bytes) -> None:
        """A command was answered by an error."""
        prefix = reply[1 : 1 + ERROR_PREFIX_CHARS_MAX].split(b" ", 1)[0].rstrip().decode(errors="replace")
        self.errors[prefix] = self.errors.get(prefix, 0) + 1
        name = self._resolve(words)
        if name is not None:
            counts = self.refused if prefix in REFUSALS or reply.startswith(_REFUSED_ARITY) else self.failed
            counts[name] = counts.get(name, 0) + 1

    def took(self, commands: list[Words], ns: int) -> None:
        """A run of these commands took so long."""
        names = [self._resolve(words) for words in commands]
        share = ns // len(names)
        if names.count(names[0]) == len(names):
            self._time(names[0], share, len(names))
        else:
            for name, count in Counter(names).items():
                self._time(name, share, count)

    def calls(self) -> dict[str, int]:
        """How often each command ran, for those that ran or were refused."""
        return {one.name: one.calls for one in self._commands if one.calls or one.name in self.refused}

    def reset(self) -> None:
        """Count from zero."""
        for one in self._commands:
            one.calls = 0
        for counts in (self.failed, self.refused, self.errors, self.timed):
            counts.clear()

    def _time(self, name: str | None, ns: int, count: int) -> None:
        if name is None:
            return
        timed = self.timed.get(name)
        if timed is None:
            timed = self.timed[name] = Timed()
        timed.add(ns, count)
