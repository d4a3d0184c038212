"""One process of a node: started, waited for, stopped.

It leads a session of its own: a Ctrl-C in the terminal reaches the node alone, which stops all in order, and what the process started can
be killed with it. If the node dies, the kernel kills the process (child.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG_BYTES_MAX = 16 << 20  # a log that is longer when its process starts is kept once as `.1`; what rotates it must truncate, not rename


class ChildProcess:
    """A started process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> ChildProcess:
        """Start it; `log` takes its output (None: where this process' goes).

        Raises:
            OSError: it can't be started.
        """
        output = _opened(log) if log is not None else None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "pipeline.node.child", str(os.getpid())),
                *command,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            if output is not None:
                os.close(output)
        return cls(process)

    async def end(self) -> int:
        """Wait for its end; its exit code, or minus the signal that killed it."""
        return await self._process.wait()

    async def stop(self, wait_s_max: float) -> bool:
        """Ask it to end (SIGTERM), and after `wait_s_max` kill it with all that it started; whether it ended by itself."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(wait_s_max):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self._process.wait()
            return False
        return True


def shown_end(code: int) -> str:
    """How a process ended."""
    return f"signal {-code}" if code < 0 else f"code {code}"


def _opened(log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
