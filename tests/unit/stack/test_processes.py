"""Real processes, small ones: what is recognised, what is stopped, what an error shows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.stack.processes import LOG_BYTES_MAX, MemberStartError, Program, Running, crash, kill, stop

WAIT = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}]); import signal; signal.pause()"


class Programs:
    """Starts what a test asks for; nothing of it is left afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Running] = []

    def program(self, code: str, name: str = "member") -> Program:
        log = self.folder / f"{name}.log"

        def is_ready() -> bool:
            return "ready" in log.read_text()

        return Program(name, [sys.executable, "-c", code], {}, log, is_ready, [])

    def start(self, code: str) -> Running:
        program = self.program(code)
        running = program.start()
        self.started.append(running)
        program.await_ready(running)
        return running


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    yield made
    kill(made.started)


def test_started_stopped_gone(programs: Programs) -> None:
    running = programs.start(WAIT)
    assert running.alive
    assert os.getsid(running.pid) == running.pid
    stop([running])
    assert not running.alive
    assert not psutil.pid_exists(running.pid)  # not even as a zombie
    stop([running])
    kill([running])
    crash(running)


def test_another_process_with_the_same_pid_is_left_alone(programs: Programs) -> None:
    running = programs.start(WAIT)
    for other in (running.model_copy(update={"ticks": running.ticks - 1}), running.model_copy(update={"boot": "another boot"})):
        assert not other.alive
        assert other.family() == []
        stop([other])
        kill([other])
        crash(other)
    assert running.alive


def test_who_ignores_the_request_is_killed(programs: Programs) -> None:
    running = programs.start(STUBBORN)
    stop([running], wait_s_max=0.1)
    assert not psutil.pid_exists(running.pid)


@pytest.mark.parametrize("end", [stop, kill])
def test_children_end_too_even_after_their_parent(programs: Programs, end: object) -> None:
    running = programs.start(PARENT)
    parent, child = running.family()
    assert parent == running.pid
    crash(running)
    assert not running.alive
    assert running.family() == [child]  # left to notice, as after a real kill -9
    assert callable(end)
    end([running])
    assert running.family() == []


def test_a_member_that_ends_shows_the_end_of_its_log_and_no_older_lines(programs: Programs) -> None:
    log = programs.folder / "member.log"
    log.write_text("an older failure\n")
    program = replace(programs.program("import sys; sys.exit('no such disk')"), is_ready=lambda: False)
    with pytest.raises(MemberStartError, match=r"(?s)^member ended while it started; the end of .*no such disk$") as raised:
        program.await_ready(program.start())
    assert "older" not in raised.value.message
    assert raised.value.fields == {"member": "member", "log": str(log)}


def test_a_member_that_ends_in_silence(programs: Programs) -> None:
    program = replace(programs.program(""), is_ready=lambda: False)
    with pytest.raises(MemberStartError, match="ended while it started, and wrote nothing to"):
        program.await_ready(program.start())


def test_a_member_that_is_never_ready(programs: Programs) -> None:
    program = replace(programs.program(WAIT), is_ready=lambda: False)
    running = program.start()
    programs.started.append(running)
    with pytest.raises(MemberStartError, match="was not ready after 0 s"):
        program.await_ready(running, wait_s_max=0)


def test_the_users_own_account_is_not_inherited(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "REDKV_SHARD_PORT", "OTHER"):
        monkeypatch.setenv(name, "the users")
    show = "import os; print({n: v for n, v in os.environ.items() if n.startswith(('AWS_', 'REDKV_', 'OTHER'))}); print('ready')"
    program = replace(programs.program(f"{show}; {WAIT}"), environment={"AWS_CONFIG_FILE": "ours"})
    running = program.start()
    programs.started.append(running)
    program.await_ready(running)
    assert program.log.read_text().startswith("{'OTHER': 'the users', 'AWS_CONFIG_FILE': 'ours'}")


def test_a_long_log_is_put_aside_once(programs: Programs) -> None:
    log = programs.folder / "member.log"
    with log.open("wb") as old:
        old.truncate(LOG_BYTES_MAX + 1)
    programs.start(WAIT)
    assert log.read_text() == "ready\n"
    assert (programs.folder / "member.log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_a_zombie_is_not_alive(programs: Programs) -> None:
    running = programs.start(WAIT)
    os.kill(running.pid, signal.SIGKILL)
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has taken its exit code yet
    assert psutil.Process(running.pid).status() == psutil.STATUS_ZOMBIE
    assert not running.alive
    assert running.family() == []
