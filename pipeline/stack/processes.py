"""Processes that outlive the command which started them: started, recognised, stopped.

Rules:
- A process is known by pid *and* start time, so that a pid that the kernel gave to somebody else is never touched.
- Each runs in a session of its own, with its output in a log file of its own; stopping takes its children along.
- Every wait has a deadline, and an error shows the last lines of the log.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.format.errors import LoadError
from pipeline.format.records import Record

LOOPBACK = "127.0.0.1"
STOP_WAIT_S = 15.0  # an orderly stop of SeaweedFS takes about 3 s, of the others less than 1 s
READY_WAIT_S = 90.0  # the metastore's first start creates its schema: 8 s on an idle machine
POLL_S = 0.05
LOG_LINES = 12


class MemberStartError(LoadError):
    """A member of the local stack did not come up."""


class Running(Record):
    """A started process: `created` is its start time in seconds since the epoch, as the kernel tells it."""

    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The process, if it is still the same one and not a zombie."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if same else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: name, command line, extra environment, log file, and how to see that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], bool]

    def start(self) -> Running:
        """Start it, without waiting until it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                list(self.command),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Running(pid=process.pid, created=psutil.Process(process.pid).create_time())

    def await_ready(self, running: Running, wait_s_max: float = READY_WAIT_S) -> None:
        """Return when it is ready.

        Raises:
            MemberStartError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + wait_s_max
        while not self.is_ready():
            if running.process() is None:
                raise self._failure("ended while it started")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {wait_s_max:.0f} s")
            time.sleep(POLL_S)

    def _failure(self, what: str) -> MemberStartError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:] if self.log.exists() else []
        return MemberStartError(f"{self.name} {what}; the end of {self.log}:\n" + "\n".join(lines), member=self.name, log=str(self.log))


def stop(running: Running, wait_s_max: float = STOP_WAIT_S) -> None:
    """End a process and its children: asked first, killed after `wait_s_max`."""
    process = running.process()
    if process is None:
        return
    family = [process, *_children(process)]
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=wait_s_max)
    for one in [*alive, *family[1:]]:
        if one.is_running():
            one.kill()
    psutil.wait_procs(family, timeout=wait_s_max)


def kill(running: Running) -> None:
    """End a process and its children at once, as a crash would (SIGKILL)."""
    process = running.process()
    if process is None:
        return
    family = [process, *_children(process)]
    for one in family:
        one.kill()
    psutil.wait_procs(family, timeout=STOP_WAIT_S)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False
