"""Starting the build job: spark-submit as a process, its log in a file, its result from a file.

Rules:
- The job is found without importing it. Credentials reach it by the environment alone.
- It runs in a process group of its own, which ends with this call: done, failed, out of time, or interrupted.
- How far it is comes from Spark's own progress bars, which it writes into the log.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from pipeline.format.errors import BuildFailedError, RedkvError, StalledError, UsageError
from pipeline.settings import ClusterSettings

LOG_LINES = 15
LOOK_S = 1.0  # between two looks at how far the job is
LOOK_BYTES = 16_384  # of the log's end: several lines about progress
PROGRESS = "progress"  # the event that the job logs
END_S_MAX = 10.0  # from SIGTERM to SIGKILL: Spark's own hooks take one or two seconds
BUILD_S_MAX = 12 * 3600.0  # a build that runs into the next night's is lost

Tell = Callable[[float, str], None]
"""Seconds so far, and how far the job is (empty if it does not say)."""

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def run_build(
    settings: ClusterSettings,
    spec: Path,
    version: str,
    log: Path,
    *,
    tell: Tell = lambda _seconds, _stage: None,
    seconds_max: float = BUILD_S_MAX,
    shard_borders: Sequence[int] = (),
    base: str | None = None,
) -> None:
    """Build one version, with a `base` a delta on it; returns when its manifest is written. `shard_borders` are slots where shards of the
    cluster begin.

    Raises:
        RedkvError: the typed error with which the job ended.
        BuildFailedError: it ended without saying why; the message holds the end of its log.
        StalledError: it was not done in time, and was ended.
    """
    with TemporaryDirectory(prefix="redkv-build-") as folder:
        result = Path(folder) / "result.json"
        command = [_spark_submit(), "--master", settings.spark_master, *_conf(settings), str(job_file())]
        borders = ("--shard-borders", ",".join(map(str, shard_borders))) if shard_borders else ()
        on = ("--base", base) if base else ()
        arguments = ["--spec", str(spec), "--version", version, "--store", settings.store, *borders, *on, "--result", str(result)]
        with _opened(log) as output:
            process = subprocess.Popen(
                [*command, *arguments], env=_environment(), stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0
            )
            try:
                code = _await(process, log, tell, seconds_max)
            finally:
                _end(process)
        _check(result, code, log)


def progress_text(log_end: str) -> str:
    """How far the job is, from the last line about it at the end of its log; empty if there is none."""
    records = (_progress(line) for line in reversed(log_end.splitlines()))
    return next((str(record["text"]) for record in records if record), "")


def _progress(line: str) -> dict[str, Any]:
    """What a line of the log says of progress; nothing if it is about something else, or not whole yet."""
    if not (line.startswith("{") and PROGRESS in line):
        return {}
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and record.get("event") == PROGRESS else {}


def _await(process: subprocess.Popen[bytes], log: Path, tell: Tell, seconds_max: float) -> int:
    began = time.monotonic()
    while True:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - began
        if seconds > seconds_max:
            message = f"the build job was not done after {seconds:.0f} s, and was ended: see {log}; the same command builds again"
            raise StalledError(message, step="build", log=str(log))
        tell(seconds, progress_text(_end_of(log)))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of the job is left running, even if this is interrupted, too."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S_MAX)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _check(result: Path, code: int, log: Path) -> None:
    record = _result(result)
    if "error" in record:
        raise RedkvError.from_json(record["error"])
    if code == 0 and record:
        return
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and not _progress(line)]
    why = " (killed: perhaps the machine ran out of memory)" if code in _KILLED else ""
    tail = "\n".join(lines[-LOG_LINES:])
    raise BuildFailedError(f"the build job ended with code {code}{why} and no result; the end of {log}:\n{tail}", code=code, log=str(log))


def _result(path: Path) -> dict[str, Any]:
    """What the job wrote; nothing if it ended before, or in the middle of it."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _opened(log: Path) -> IO[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("wb")
    except OSError as refused:
        raise UsageError(f"the build log {log} can't be written: {refused}; set another log_dir", log=str(log)) from refused


def _end_of(log: Path) -> str:
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - LOOK_BYTES))
        return written.read().decode(errors="replace")


def _conf(settings: ClusterSettings) -> list[str]:
    conf = {
        "spark.hadoop.hive.metastore.uris": settings.metastore_uris,
        **settings.spark_conf,
    }
    return [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]


def _environment() -> dict[str, str]:
    """Spark's Python workers run this interpreter, unless the user chose another."""
    return {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, **os.environ}


def _spark_submit() -> str:
    home = os.environ.get("SPARK_HOME")
    places = [str(Path(home) / "bin")] if home else []
    places += [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which("spark-submit", path=os.pathsep.join(places))
    if found is None:
        raise UsageError("there is no spark-submit: install the extra `spark` (pip install 'redkv[spark]'), or set SPARK_HOME")
    return found


def job_file() -> Path:
    """What spark-submit runs: the build job, found without importing it.

    Raises:
        UsageError: it is not installed here.
    """
    found = importlib.util.find_spec("udtf")
    if found is None or not found.submodule_search_locations:
        raise UsageError("the build job (package udtf) is not installed here: pip install 'redkv[spark]'")
    return Path(found.submodule_search_locations[0]) / "job.py"
