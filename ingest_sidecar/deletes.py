"""Taking files of removed directories from the disk at a pace: an SSD that trims gigabytes at once serves its readers late.

Rules:
- A directory that goes is out of sight before (disk.py), so nobody waits for its files.
- A file that begins goes whole; what it takes beyond the pace is paid back before the next one. A link to what others still have is free.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SAVED_S_MAX = 10.0  # of the pace: what may go at once after a silence; turns of the reconciler come more often


class Deletes:
    """Of one node, `bytes_s` all together; None is no limit. Used by one thread at a time."""

    def __init__(self, bytes_s: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_s, self._clock = bytes_s, clock
        self._balance = float(bytes_s or 0)
        self._earned_until = clock()

    def remove(self, root: Path) -> bool:
        """Remove a directory as far as the pace allows; True when all of it is gone."""
        for folder, _, names in os.walk(root, topdown=False):
            for name in names:
                if not self._may():
                    return False
                path = Path(folder, name)
                found = path.lstat()
                self._balance -= found.st_size if found.st_nlink == 1 else 0
                path.unlink()
            Path(folder).rmdir()
        return True

    def _may(self) -> bool:
        if self._bytes_s is None:
            return True
        now = self._clock()
        self._balance = min(self._balance + (now - self._earned_until) * self._bytes_s, self._bytes_s * SAVED_S_MAX)
        self._earned_until = now
        return self._balance >= 0
