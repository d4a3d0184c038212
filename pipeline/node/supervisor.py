"""Starts and watches the processes of one node until it is told to stop.

Rules:
- Shards start first, then the sidecar. They stop the other way round: the sidecar, then all shards at once, so that nothing tells a shard
  what to do that is going away.
- A process that ends, however it does, is started again (restarts.py says when): to end one for good, stop the node.
- Each process is kept by a task of its own. What happens to it is a log line and a change of the status file; nothing of it touches others.
- One `redkv node` runs per status file: it holds a lock beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from pipeline.format.errors import NodeError
from pipeline.node.process import ChildProcess, shown_end
from pipeline.node.restarts import Restarts
from pipeline.node.settings import SIDECAR, Member, NodeSettings
from pipeline.node.status import NodeProcesses, ProcessState, ProcessStatus, write_status

STOP_WAIT_S = 20.0  # a shard sends its last replies (2 s) and writes its memtable; a sidecar ends its work (10 s)


class Supervisor:
    """The processes of one node."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._log = structlog.get_logger("node")
        self._keepers = {
            name: _Keeper(name, member, _log_file(settings.log_dir, name), self._tell) for name, member in settings.members.items()
        }

    async def run(self, stop: asyncio.Event) -> bool:
        """Keep all processes running until `stop`, then stop them; whether all ended by themselves.

        Raises:
            NodeError: another `redkv node` runs here, or the status file can't be written.
        """
        with _locked(self._settings.status_file):
            self._log.info("starting", processes=list(self._keepers))
            tasks = {name: asyncio.create_task(keeper.keep(), name=name) for name, keeper in self._keepers.items()}
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)  # a keeper ends by a bug alone
            finally:
                stopping.cancel()
                ended = await self._stop(tasks)
            return ended

    async def _stop(self, tasks: dict[str, asyncio.Task[bool]]) -> bool:
        self._log.info("stopping")
        ends: list[bool | BaseException] = []
        for batch in ([SIDECAR] if SIDECAR in tasks else [], [name for name in tasks if name != SIDECAR]):
            for name in batch:
                self._keepers[name].stop.set()
            ends += await asyncio.gather(*(tasks[name] for name in batch), return_exceptions=True)
        self._log.info("stopped")
        for end in ends:
            if isinstance(end, BaseException):  # told after all others were stopped
                raise end
        return all(ends)

    def _tell(self) -> None:
        processes = {name: keeper.status for name, keeper in self._keepers.items()}
        try:
            write_status(self._settings.status_file, NodeProcesses(node=self._settings.name, pid=os.getpid(), processes=processes))
        except OSError as failed:  # a full disk must not end what still runs
            self._log.error("the status file can't be written", path=str(self._settings.status_file), error=str(failed))


class _Keeper:
    """Keeps one process running until `stop`."""

    def __init__(self, name: str, member: Member, log_file: Path | None, tell: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self._module = "ingest_sidecar" if name == SIDECAR else "server"
        self._member = member
        self._log_file = log_file
        self._tell = tell
        self._restarts = Restarts()
        self._log = structlog.get_logger("node").bind(process=name)
        self.status = ProcessStatus(state=ProcessState.STOPPED, pid=None, starts=0, young_ends=0, last_end=None, since_ms=_now_ms())

    async def keep(self) -> bool:
        """Run until `stop`; whether the process ended by itself then."""
        ended = True
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                process = await self._start()
            except OSError as failed:
                self._log.error("can't be started", error=str(failed))
                code = 1
            else:
                if not await self._first(process.end()):
                    ended = await process.stop(STOP_WAIT_S)
                    if not ended:
                        self._log.error("had to be killed", waited_s=STOP_WAIT_S)
                    break
                code = await process.end()
            await self._rest(code, time.monotonic() - began)
        self._become(ProcessState.STOPPED, pid=None)
        self._log.info("stopped")
        return ended

    async def _start(self) -> ChildProcess:
        command = [sys.executable, "-P", "-m", self._module, "--config", str(self._member.config.resolve())]
        process = await ChildProcess.start(command, self._member.environment, self._log_file)
        self._become(ProcessState.RUNNING, pid=process.pid, starts=self.status.starts + 1)
        self._log.info("started", pid=process.pid)
        return process

    async def _rest(self, code: int, lived_s: float) -> None:
        was_in_loop = self._restarts.in_loop
        wait_s = self._restarts.wait_s(code, lived_s)
        told = {"end": shown_end(code), "lived_s": round(lived_s, 1), "wait_s": round(wait_s, 1), "log": str(self._log_file or "stderr")}
        if self._restarts.in_loop and not was_in_loop:
            self._log.error("is in a crash loop: look at the end of its log; it is tried again by itself", **told)
        else:
            self._log.warning("ended", **told)
        state = ProcessState.CRASH_LOOP if self._restarts.in_loop else ProcessState.WAITING
        self._become(state, pid=None, young_ends=self._restarts.young_ends, last_end=shown_end(code))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.stop.wait()

    async def _first(self, end: Coroutine[Any, Any, int]) -> bool:
        """Whether the process ends before it is told to."""
        ending, told = asyncio.ensure_future(end), asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({ending, told}, return_when=asyncio.FIRST_COMPLETED)
            return ending.done()
        finally:
            ending.cancel()
            told.cancel()

    def _become(self, state: ProcessState, **changes: object) -> None:
        self.status = self.status.model_copy(update={"state": state, "since_ms": _now_ms(), **changes})
        self._tell()


@contextmanager
def _locked(status_file: Path) -> Iterator[None]:
    try:
        status_file.parent.mkdir(parents=True, exist_ok=True)
        lock = status_file.with_name(status_file.name + ".lock").open("w")
    except OSError as refused:
        raise NodeError(f"the status file {status_file} can't be used: {refused}", path=str(status_file)) from refused
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            message = f"another `redkv node` runs here: it holds the lock beside {status_file}, and its pid is in that file"
            raise NodeError(message, path=str(status_file)) from held
        yield


def _log_file(folder: Path | None, name: str) -> Path | None:
    return folder.resolve() / f"{name}.log" if folder is not None else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
