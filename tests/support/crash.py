"""Crash points of pipeline/format/crashpoints.py, armed for a process that a test starts."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.format.crashpoints import AT, MARK, SIGNAL

WAIT_S = 60.0  # for what takes a second on an idle machine
LOOK_S = 0.01


@dataclass(frozen=True)
class Trap:
    """Armed by its `environment`. The first process that reaches `point` is killed there, or stopped until it is told to go on."""

    point: str
    folder: Path
    signal: Literal["KILL", "STOP"] = "KILL"

    @property
    def mark(self) -> Path:
        return self.folder / f"reached {self.point}".replace(" ", "-")

    @property
    def environment(self) -> dict[str, str]:
        return {AT: self.point, MARK: str(self.mark), SIGNAL: self.signal}

    @property
    def sprung(self) -> bool:
        return self.mark.exists()

    @property
    def pid(self) -> int:
        """The process in it."""
        return int(self.mark.read_text())

    def go_on(self) -> None:
        """Let a stopped process go on, if it is alive."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> None:
        """Until a process is in it."""
        deadline = time.monotonic() + WAIT_S
        while not (self.sprung and self.mark.read_text().endswith("\n")):
            assert time.monotonic() < deadline, f"no process reached {self.point}"
            time.sleep(LOOK_S)
