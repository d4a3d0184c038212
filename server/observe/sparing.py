"""Log lines that a client can cause at will, held to a rate."""

from __future__ import annotations

from collections.abc import Callable

import structlog

PERIOD_MS = 1_000  # a line a second of each kind is enough to see that something goes on, and the count says how much


class SparingLog:
    """Warnings of which each kind is written once a period at most; the next one says how many were left out."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._last_ms: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._log = structlog.get_logger("server.clients")

    def warning(self, event: str, **facts: object) -> None:
        """Write a line, or count it."""
        now = self._clock()
        if now - self._last_ms.get(event, -PERIOD_MS) < PERIOD_MS:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._last_ms[event] = now
        left_out = self._left_out.pop(event, 0)
        if left_out:
            facts["left_out"] = left_out
        self._log.warning(event, **facts)
