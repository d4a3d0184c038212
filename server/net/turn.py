"""The end of one turn of the event loop: its writes as one batch for all connections, then its replies, one connection after the other.

Rules:
- A connection whose run left something to be written is held: its replies leave when the batch is written, in the same turn. So is one that
  only read while others' writes were pending: it may have seen them.
- A connection is held once; what it sends meanwhile waits.
- While a command of several turns is under way, nothing is held: its steps find no writes of others pending, and may discard their own.
- Whoever commits, a batch that fails is told to all who were held for it.

- Replies that wait for no write leave at the end of the turn, too, as Redis' do: whoever is sent one while others are still worked for
  falls asleep in between, and to wake it up again and again is what a reply costs most.

A write to the log is a system call: with fifty clients that ask one by one, this makes one of what were up to fifty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from pipeline.format.errors import NodeError
from server.storage.live import LiveStore


class Held(Protocol):
    """Who waits for the batch."""

    def release(self, failed: NodeError | None) -> None:
        """It is written, or lost."""


class Answered(Protocol):
    """Who has a reply that waits for nothing but the end of the turn."""

    def answer(self) -> None:
        """Send it."""


class Turn:
    """The ends of turns of one shard. `under_way` counts commands of several turns; `defer` runs a function at the end of this turn."""

    __slots__ = ("_answered", "_defer", "_ends", "_failures", "_held", "_live", "_log", "under_way")

    def __init__(self, live: LiveStore, defer: Callable[[Callable[[], None]], object]) -> None:
        self._live = live
        self._defer = defer
        self._held: list[Held] = []
        self._answered: list[Answered] = []
        self._ends = False  # its end is asked for
        self._failures = 0
        self._log = structlog.get_logger("server.turn")
        self.under_way = 0

    def hold(self, one: Held) -> None:
        """Release it at the end of this turn."""
        if not self._held:
            self._failures = self._live.failures
        self._held.append(one)
        if not self._ends:
            self._ends = True
            self._defer(self._at_end)

    def reply(self, one: Answered) -> None:
        """Let it answer at the end of this turn."""
        self._answered.append(one)
        if not self._ends:
            self._ends = True
            self._defer(self._at_end)

    def _at_end(self) -> None:
        self._ends = False
        answered, self._answered = self._answered, []
        if self._held:
            self.end()
        for one in answered:
            one.answer()

    def end(self) -> NodeError | None:
        """Write now, and release all; why it failed."""
        held, self._held = self._held, []
        failed = None
        try:
            self._live.commit()
        except NodeError as lost:
            failed = lost
            self._log.error("a batch of writes failed", error=lost.message)
        if failed is None and held and self._live.failures != self._failures:
            failed = self._live.last_failure
        for one in held:
            one.release(failed)
        return failed
