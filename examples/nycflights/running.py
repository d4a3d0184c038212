"""What demos run with: processes that end with their caller, steps that are timed, signals that end a demo in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from examples.nycflights.report import console

TABLES_S_MAX = 300.0


class DemoError(Exception):
    """A demo found something wrong; the message says what."""


@contextmanager
def timed(what: str) -> Iterator[None]:
    """A step, told when it is done."""
    begin = perf_counter()
    yield
    console.print(f"[green]done[/] {what} ({perf_counter() - begin:.1f} s)")


def run(command: list[str], timeout_s: float, **streams: Any) -> tuple[int, bytes]:
    """A process with all that it starts, which ends with this call whatever happens; its exit code and captured output."""
    with subprocess.Popen(command, start_new_session=True, **streams) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output or b""


def create_tables(csv: Path, config: Path, log: Path) -> None:
    """Create the Hive tables of the CSV files in a folder, on the cluster that `config` names.

    Raises:
        DemoError: they could not be created; the log says why.
    """
    command = [sys.executable, "-m", "examples.nycflights.tables", "--csv", str(csv), "--config", str(config)]
    with log.open("wb") as output:
        status, _ = run(command, TABLES_S_MAX, stdout=output, stderr=subprocess.STDOUT)
    if status:
        raise DemoError(f"the tables could not be created: see {log}")


def end_on_signal() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that it stops what it started."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
