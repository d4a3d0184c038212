"""Processes that outlive the command which started them: started, recognised, stopped. Linux only: it reads /proc and waits on pidfds.

Rules:
- A process is known by boot, pid and start time in clock ticks, so that a pid which the kernel gave to somebody else is never touched,
  whatever happens to the wall clock.
- Each leads a session of its own, and its output goes to a log file of its own. What it started belongs to its session: that is how
  children are found whose parent died.
- Members get this process' environment without AWS_* and REDKV_*: the user's own credentials and settings are not theirs.
- Every wait has a deadline, and an error shows the end of the log.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.format.errors import LoadError
from pipeline.format.records import Record
from pipeline.stack.ports import is_free

STOP_WAIT_S = 15.0  # an orderly stop of SeaweedFS takes about 2 s, of the others less than 1 s
READY_WAIT_S = 90.0  # the metastore's first start creates its schema: 8 s on an idle machine
POLL_S = 0.05
LOG_LINES = 12
LOG_BYTES_MAX = 16 << 20  # a log that is longer when its member starts is kept once as `.1`
_NOT_INHERITED = ("AWS_", "REDKV_")
_PROC = Path("/proc")


class MemberStartError(LoadError):
    """A member of the local stack did not come up."""


class Running(Record):
    """A started process. `boot` is the kernel's boot id, `ticks` its start in clock ticks since that boot, `log_start` the bytes of its
    log that are older than it.
    """

    pid: int
    boot: str
    ticks: int
    log_start: int

    @property
    def alive(self) -> bool:
        """Whether it is there, and neither another process nor a zombie."""
        found = _look(self.pid)
        return found is not None and found.ticks == self.ticks and self.boot == _boot() and not found.zombie

    def family(self) -> list[int]:
        """The pids of its session that are alive, its own first: also those whose parent died.

        The kernel gives no pid away that is still a session's id. So if the pid is somebody else's now, nobody is left.
        """
        leader = _look(self.pid)
        if self.boot != _boot() or (leader is not None and leader.ticks != self.ticks):
            return []
        found = [one for one in _all() if one.session == self.pid and one.ticks >= self.ticks and not one.zombie]
        return sorted((one.pid for one in found), key=lambda pid: (pid != self.pid, pid))


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: name, command line, more environment, log file, how to see that it is ready, and the ports that it will take."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], bool]
    ports: Sequence[int]

    def check_ports(self) -> None:
        """Refuse to start beside somebody else: SeaweedFS would move to another port by itself, a shard's PING would be answered by others.

        Raises:
            MemberStartError: a port is taken.
        """
        taken = [port for port in self.ports if not is_free(port)]
        if taken:
            raise MemberStartError(
                f"{self.name} can't start: port {taken[0]} of 127.0.0.1 is taken by another program; "
                f"find it with `ss -ltnp 'sport = :{taken[0]}'` and stop it",
                member=self.name,
                ports=taken,
            )

    def start(self) -> Running:
        """Start it, without waiting until it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        with self.log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                list(self.command),
                cwd=self.log.parent,  # what it leaves where it stands, such as a crash report, lies beside its log
                env={**inherited, **{name: value for name, value in self.environment.items() if value}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process.returncode = 0  # it outlives this object, which would warn about that when it goes
        found = _look(process.pid)  # always there: even a process that ended at once stays as a zombie of ours
        return Running(pid=process.pid, boot=_boot(), ticks=found.ticks if found else 0, log_start=log_start)

    def await_ready(self, running: Running, wait_s_max: float = READY_WAIT_S) -> None:
        """Return when it is ready.

        Raises:
            MemberStartError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + wait_s_max
        while True:
            if not running.alive:
                raise self._failure("ended while it started", running)
            if self.is_ready():
                return
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {wait_s_max:.0f} s", running)
            time.sleep(POLL_S)

    def _failure(self, what: str, running: Running) -> MemberStartError:
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(running.log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
            if lines:
                message = f"{self.name} {what}; the end of {self.log}:\n" + "\n".join(lines)
                return MemberStartError(message, member=self.name, log=str(self.log))
        return MemberStartError(f"{self.name} {what}, and wrote nothing to {self.log}", member=self.name, log=str(self.log))


def stop(running: Iterable[Running], wait_s_max: float = STOP_WAIT_S) -> None:
    """End processes together, in order: each is asked by SIGTERM, and what is left of its session after `wait_s_max` is killed."""
    members = [one for one in running if one.family()]
    with _watched([one.pid for one in members if one.alive]) as leaders:
        for descriptor in leaders:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        _await_end(leaders, wait_s_max)
    kill(members)


def kill(running: Iterable[Running]) -> None:
    """End processes and all that they started at once (SIGKILL)."""
    with _watched([pid for one in running for pid in one.family()]) as processes:
        for descriptor in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _await_end(processes, STOP_WAIT_S)


def crash(running: Running) -> None:
    """What `kill -9 PID` does: this one process ends at once, and what it started is left to notice."""
    with _watched([running.pid] if running.alive else []) as processes:
        for descriptor in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _await_end(processes, STOP_WAIT_S)


@contextmanager
def _watched(pids: Iterable[int]) -> Iterator[list[int]]:
    """A pidfd of each process that is there: it names this process and no later one, and becomes readable when the process ends."""
    pids = list(pids)
    with ExitStack() as opened:
        descriptors = []
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                opened.callback(os.close, descriptor)
                descriptors.append(descriptor)
        yield descriptors
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # ours stay as zombies until we look; other people's children are init's business


def _await_end(descriptors: Iterable[int], wait_s_max: float) -> None:
    deadline = time.monotonic() + wait_s_max
    waiting = select.poll()
    left = set(descriptors)
    for descriptor in left:
        waiting.register(descriptor, select.POLLIN)
    while left and (rest_s := deadline - time.monotonic()) > 0:
        for descriptor, _ in waiting.poll(rest_s * 1000):
            waiting.unregister(descriptor)
            left.discard(descriptor)


@dataclass(frozen=True, slots=True)
class _Seen:
    pid: int
    zombie: bool
    session: int
    ticks: int


def _look(pid: int) -> _Seen | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # proc(5): the name before it may hold spaces and brackets; field 3 comes first here
    return _Seen(pid, zombie=fields[0] in "ZX", session=int(fields[3]), ticks=int(fields[19]))


def _all() -> Iterator[_Seen]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := _look(int(entry.name))) is not None:
            yield found


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
