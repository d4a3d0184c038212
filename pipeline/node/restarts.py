"""When a process that ended is started again. Pure.

Rules:
- The wait doubles from WAIT_S_MIN to WAIT_S_MAX while a process ends young; one that lived STEADY_S begins anew.
- After LOOP_ENDS young ends in a row, or one that says that its settings are wrong, it is in a crash loop: from then on one start in
  LOOP_WAIT_S, so that a cause which is mended elsewhere (a full disk, a taken port, a settings file) needs nobody here.
- Each wait is shortened at random by up to a half, so that many processes with one cause do not come back in one moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable

WAIT_S_MIN = 0.5
WAIT_S_MAX = 30.0
STEADY_S = 60.0  # a shard listens after a second or two, replaying its log included
LOOP_ENDS = 6  # with the waits between them, about 15 s of trying
LOOP_WAIT_S = 60.0
EXIT_USAGE = 2  # exit code of a process whose settings must be mended


class Restarts:
    """The ends of one process so far."""

    def __init__(self, jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)) -> None:
        self.young_ends = 0
        self._wrong_settings = False
        self._jitter = jitter

    @property
    def in_loop(self) -> bool:
        """Whether it is in a crash loop."""
        return self._wrong_settings or self.young_ends >= LOOP_ENDS

    def wait_s(self, code: int, lived_s: float) -> float:
        """Note an end with an exit code (negative: by a signal) after so many seconds; how long to wait before the next start."""
        self.young_ends = 0 if lived_s >= STEADY_S else self.young_ends + 1
        self._wrong_settings = code == EXIT_USAGE
        if self.in_loop:
            return LOOP_WAIT_S * self._jitter()
        doublings = max(self.young_ends - 1, 0)
        return min(WAIT_S_MIN * (1 << doublings), WAIT_S_MAX) * self._jitter()
