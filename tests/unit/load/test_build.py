"""The build job's process, with a spark-submit that does what a test says. The real one is in tests/integration/test_build_spark.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline.format.errors import BuildFailedError, StalledError, UnknownColumnError, UsageError
from pipeline.load import build
from pipeline.load.build import progress_text, run_build
from pipeline.settings import ClusterSettings

SETTINGS = ClusterSettings(store="s3://bucket/root", cluster="c", metastore_uris="thrift://127.0.0.1:1", spark_conf={"spark.a": "b"})
WAIT_S = 60.0  # for what takes a moment on an idle machine
PROGRESS_LINE = json.dumps({"event": "progress", "text": "write: 3 of 8 tasks"})
RESULT = 'for last; do :; done; result="$last"'


class Submit:
    """A spark-submit of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "logs" / "build.log"
        self.path = folder / "bin" / "spark-submit"
        self.path.parent.mkdir()
        self.looks = 0

    def run(self, script: str, **more: object) -> None:
        self.path.write_text(f"#!/bin/sh\n{RESULT}\n{script}\n", encoding="utf-8")
        self.path.chmod(0o755)
        run_build(SETTINGS, self.folder / "spec.yaml", "2026-11-22", self.log, **more)  # type: ignore[arg-type]

    def child(self) -> int | None:
        """The pid that the job wrote, if it has."""
        path = self.folder / "child"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return int(text) if text.endswith("\n") else None

    def await_child(self) -> int:
        wait_until(lambda: self.child() is not None)
        return self.child() or 0

    def clock(self) -> float:
        """Seconds: 0 when the wait begins, and until the job has written a pid; then too many have gone by."""
        looks, self.looks = self.looks, self.looks + 1
        return 0.0 if looks == 0 or self.child() is None else 1e6


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def await_end(pid: int) -> None:
    """Until a process has ended, which was told to; a zombie has, though its parent did not look yet."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(build, "LOOK_S", 0.02)
    return Submit(tmp_path)


def test_the_job_gets_its_arguments_and_its_result_counts(submit: Submit) -> None:
    submit.run('echo "$@"; echo \'{"manifest_key": "k", "build_id": "b", "existed": false}\' > "$result"', shard_borders=(5461, 10923))
    said = submit.log.read_text(encoding="utf-8")
    for part in ("--master local[2]", "--conf spark.hadoop.hive.metastore.uris=thrift://127.0.0.1:1", "--conf spark.a=b", "udtf/job.py"):
        assert part in said
    assert f"--spec {submit.folder}/spec.yaml --version 2026-11-22 --store s3://bucket/root --shard-borders 5461,10923 --result /" in said


def test_its_typed_error_comes_out(submit: Submit) -> None:
    with pytest.raises(UnknownColumnError, match="no column nmae") as failed:
        submit.run('echo \'{"error": {"error": "UnknownColumnError", "message": "no column nmae", "fields": {}}}\' > "$result"; exit 2')
    assert failed.value.exit_code == 2


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("exit 0", 0), ("echo '{\"manif' > $result; exit 1", 1)])
def test_an_end_without_a_result_shows_the_end_of_the_log(submit: Submit, script: str, code: int) -> None:
    with pytest.raises(BuildFailedError, match=f"ended with code {code} and no result; the end of .*build.log:\nno space left$") as failed:
        submit.run(f"echo no space left; echo '{PROGRESS_LINE}'; {script}")
    assert failed.value.fields == {"code": code, "log": str(submit.log)}


def test_a_killed_job_is_said_to_be_killed(submit: Submit) -> None:
    with pytest.raises(BuildFailedError, match="perhaps the machine ran out of memory"):
        submit.run("kill -9 $$")


def test_a_job_that_takes_too_long_is_ended_with_all_that_it_started(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "time", SimpleNamespace(monotonic=submit.clock))
    with pytest.raises(StalledError, match="the build job was not done after"):
        submit.run(f"sleep 300 & echo $! > {submit.folder}/child; wait", seconds_max=60)
    await_end(submit.await_child())


def test_a_job_that_does_not_listen_is_killed(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "END_S_MAX", 0.1)
    monkeypatch.setattr(build, "time", SimpleNamespace(monotonic=submit.clock))
    with pytest.raises(StalledError):
        submit.run(f"trap '' TERM; echo $$ > {submit.folder}/child; while :; do sleep 0.05; done", seconds_max=60)
    await_end(submit.await_child())


def test_what_the_job_says_of_its_progress_is_told(submit: Submit) -> None:
    told: list[str] = []

    def tell(_seconds: float, stage: str) -> None:
        told.append(stage)
        if stage:
            (submit.folder / "go").touch()

    submit.run(
        f"echo '{PROGRESS_LINE}'; while [ ! -e {submit.folder}/go ]; do sleep 0.01; done; echo '{{\"build_id\": \"b\"}}' > $result",
        tell=tell,
    )
    assert told[-1] == "write: 3 of 8 tasks"


def test_progress_is_read_from_the_last_whole_line_about_it() -> None:
    assert progress_text("26/11/22 WARN some progress") == ""
    first, second = (json.dumps({"event": "progress", "text": text}) for text in ("one", "two"))
    other = json.dumps({"event": "finished", "what": "progress"})
    assert progress_text(f"{first}\n{second}\n{other}\n26/11/22 WARN\n{first[:20]}") == "two"


def test_a_log_that_cannot_be_written(submit: Submit) -> None:
    submit.log.mkdir(parents=True)
    with pytest.raises(UsageError, match="set another log_dir"):
        submit.run("exit 0")


def test_no_spark_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no spark-submit: install the extra `spark`"):
        run_build(SETTINGS, tmp_path / "spec.yaml", "2026-11-22", tmp_path / "build.log")


INTERRUPTED = """
import sys
from pathlib import Path
from pipeline.load.build import run_build
from pipeline.settings import ClusterSettings
settings = ClusterSettings(store="s3://bucket/root", cluster="c", metastore_uris="thrift://127.0.0.1:1")
told = lambda seconds, stage: print("running", flush=True)
run_build(settings, Path("spec.yaml"), "2026-11-22", Path(sys.argv[1]), tell=told)
"""


def test_an_interruption_leaves_nothing_running(submit: Submit) -> None:
    submit.path.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {submit.folder}/child\nwait\n", encoding="utf-8")
    submit.path.chmod(0o755)
    command = [sys.executable, "-c", INTERRUPTED, str(submit.log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"running\n"
        child = submit.await_child()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=WAIT_S)
    await_end(child)
