"""CLIENT PAUSE: commands wait where they are until a time, or until CLIENT UNPAUSE.

Rules:
- In mode WRITE only commands that may write wait, and EXEC; what stands before them in a pipeline runs.
- A waiting connection reads nothing more: what waits is what one read brought.
- The admin socket is never paused.
- A pause takes the later end and the stronger mode of itself and one that is under way, as in Redis 7.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Words = list[bytes]
Writes = Callable[[Words], bool]
"""Whether a command may write."""

MS_PER_S = 1_000


class Pause:
    """The pause of one shard; `active` is what the hot path looks at."""

    def __init__(self, writes: Writes) -> None:
        self.active = False
        self._writes = writes
        self._all = False
        self._until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, ms: int, *, everything: bool) -> None:
        """Pause for so long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + ms / MS_PER_S
        self._all = everything or (self.active and self._all)
        self._until_s = max(until_s, self._until_s) if self.active else until_s
        self.active = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._until_s, self.end)

    def end(self) -> None:
        """Let all go on."""
        self.active = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for go_on in waiting.values():
            asyncio.get_running_loop().call_soon(go_on)

    def may_run(self, commands: list[Words], place: int) -> int:
        """Up to which place commands may run now; `place` itself if the next one must wait."""
        if self._all:
            return place
        for at in range(place, len(commands)):
            if self._writes(commands[at]):
                return at
        return len(commands)

    def wait(self, who: object, go_on: Callable[[], None]) -> None:
        """Call `go_on` when the pause ends."""
        self._waiting[who] = go_on

    def forget(self, who: object) -> None:
        """It is gone."""
        self._waiting.pop(who, None)
