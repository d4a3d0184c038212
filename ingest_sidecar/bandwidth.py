"""The token bucket that all downloads of a node draw from: bytes per second, changeable while they run.

Rules:
- Who took bytes waits until they are paid for: the debt of one chunk is the most that the rate is ever exceeded by, beside the burst.
- Two rates may be set, the operator's limit and what the readers leave (governor.py); the lower one counts. None is no limit.
- Waiting ends at once when the download is stopped or the rate rises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition, Event

BURST_S = 0.25  # of the rate: what may come at once after a silence
WAIT_S_MAX = 0.5  # between two looks whether the download was stopped


class TokenBucket:
    """Thread-safe. `waited_s` counts the seconds that downloads were held, all together."""

    def __init__(self, limit: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = Condition()
        self._limit = limit
        self._left_by_readers: float | None = None
        self._balance = 0.0
        self._paid_until = clock()
        self.waited_s = 0.0

    @property
    def limit(self) -> float | None:
        """The operator's limit in bytes/s."""
        return self._limit

    @property
    def rate(self) -> float | None:
        """What counts now, in bytes/s."""
        rates = [one for one in (self._limit, self._left_by_readers) if one is not None]
        return min(rates) if rates else None

    def set_limit(self, limit: float | None) -> None:
        """The operator's limit from now on."""
        self._set(limit, self._left_by_readers)

    def leave(self, rate: float | None) -> None:
        """What the readers leave from now on."""
        self._set(self._limit, rate)

    def _set(self, limit: float | None, left: float | None) -> None:
        with self._changed:
            self._pay()
            self._limit, self._left_by_readers = limit, left
            self._changed.notify_all()

    def take(self, count: int, stopped: Event) -> None:
        """Take bytes that have arrived; returns once they are paid for, or `stopped` is set."""
        with self._changed:
            self._pay()
            self._balance -= count
            began = self._clock()
            while self._balance < 0 and (rate := self.rate) is not None and not stopped.is_set():
                self._changed.wait(min(-self._balance / rate, WAIT_S_MAX))
                self._pay()
            self.waited_s += self._clock() - began

    def _pay(self) -> None:
        now, rate = self._clock(), self.rate
        if rate is None:
            self._balance = 0.0
        else:
            self._balance = min(self._balance + (now - self._paid_until) * rate, rate * BURST_S)
        self._paid_until = now
