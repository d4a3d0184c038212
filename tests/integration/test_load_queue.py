"""Many loads at once on one cluster: who runs, who waits, and what a coordinator that dies leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from pipeline.format.queue import LoadQueue
from pipeline.load.progress import LoadEvent, LoadReport, QueueSeen, Step, StepBegan
from pipeline.load.queue import Queue
from pipeline.load.steps import coordinator_point
from pipeline.load.turn import queue_line
from pipeline.load.waiting import Patience
from pipeline.spec import DatasetSpec
from tests.support.builds import hash_spec
from tests.support.clusters import Cluster, running_cluster
from tests.support.crash import Trap
from tests.support.listener import Recorder
from tests.support.s3 import S3
from tests.support.sidecars import CLUSTER

V1, V2 = "2026-11-21", "2026-11-22"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("queue")) as one:
        one.more_settings = "loads_max = 1"
        yield one


def queue(cluster: Cluster) -> LoadQueue:
    return Queue(cluster.store, CLUSTER).read()


def spec_of(name: str) -> DatasetSpec:
    return hash_spec(name, f"{name}:${{id}}")


class Waits:
    """A listener of a load that waits: what it saw, and an event for the first look."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen = Event()

    def __call__(self, event: LoadEvent) -> None:
        if isinstance(event, QueueSeen):
            self.lines.append(queue_line(event.place, event.queue))
            self.seen.set()


def test_loads_beyond_the_limit_wait_in_the_order_of_priority_and_see_who_runs(cluster: Cluster) -> None:
    for name in ("first", "calm", "urgent", "late"):
        cluster.build(spec_of(name), V1)
    held, running, order = Event(), Event(), list[str]()

    def hold() -> None:
        running.set()
        assert held.wait(WAIT_S)

    def listening(name: str, waits: Waits) -> Callable[[LoadEvent], None]:
        def listen(event: LoadEvent) -> None:
            waits(event)
            if isinstance(event, StepBegan) and event.step is Step.STAGE:
                order.append(name)

        return listen

    with ThreadPoolExecutor(4) as pool:
        loads: list[Future[LoadReport]] = [pool.submit(cluster.load, spec_of("first"), V1, Recorder(on_step={Step.INGEST: hold}))]
        try:
            assert running.wait(WAIT_S)
            told = {}
            for name, priority in (("calm", 0), ("urgent", 5), ("late", 0)):
                told[name] = Waits()
                loads.append(pool.submit(cluster.load, spec_of(name), V1, listening(name, told[name]), priority=priority))
                assert told[name].seen.wait(WAIT_S)
            found = queue(cluster)
            assert [one.dataset for one in found.running] == ["first"]
            assert [one.dataset for one in found.waiting] == ["urgent", "calm", "late"]
            status = json.loads(cluster.redkv("status", "--output", "json").stdout)["queue"]
            assert [(one["dataset"], one["priority"], one["started_at_ms"] is None) for one in status] == [
                ("first", 0, False),
                ("urgent", 5, True),
                ("calm", 0, True),
                ("late", 0, True),
            ]
            assert "load first 2026-11-21 by " in cluster.redkv("status").stdout
        finally:
            held.set()
        assert all(one.result(WAIT_S).changed for one in loads)
    assert order == ["urgent", "calm", "late"]
    who = f"now: first {V1} by {cluster.documents.process}, running since "
    assert told["calm"].lines[0].startswith(f"place 1 of 1; {who}")
    assert told["urgent"].lines[0].startswith(f"place 1 of 2; {who}")
    assert told["late"].lines[0].startswith(f"place 3 of 3; {who}")
    assert queue(cluster).loads == ()


def killed(cluster: Cluster, spec: DatasetSpec, version: str, point: str, folder: Path) -> None:
    """A load by the real command that dies there."""
    command = [sys.executable, "-m", "pipeline.cli", "--config", str(cluster.settings_file), "--as", "ann", "load"]
    arguments = [str(cluster.spec_file(spec)), "--version", version, "--priority", "9"]
    environment = {**os.environ, **Trap(point, folder).environment}
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("point", [coordinator_point(Step.QUEUE, "written"), coordinator_point(Step.STAGE, "begun")])
def test_a_coordinator_that_dies_holds_up_neither_the_others_nor_its_successor(cluster: Cluster, tmp_path: Path, point: str) -> None:
    """Once as it waits, once as it runs."""
    name = point.replace(".", "-")
    dead, other = spec_of(f"dead-{name}"), spec_of(f"other-{name}")
    for spec in (dead, other):
        cluster.build(spec, V1)
    killed(cluster, dead, V1, point, tmp_path)
    [left] = queue(cluster).loads
    assert (left.dataset, left.by.startswith("ann:"), left.priority) == (dead.dataset, True, 9)
    recorder = Recorder()
    assert cluster.load(other, V1, recorder, Patience(silence_s_max=0.1)).changed
    assert f"{dead.dataset} {V1} by {left.by} gave no sign of life for 0.1 s: taken from the queue" in recorder.notes
    (again := tmp_path / "again").mkdir()
    killed(cluster, dead, V1, point, again)
    began = Recorder()
    assert cluster.load(dead, V1, began).changed  # at once, in the same place
    assert any(note.startswith(f"another load of {dead.dataset} is under way: {dead.dataset} {V1} by ann:") for note in began.notes)
    assert cluster.served(dead) == cluster.served(other) == {V1}
    assert queue(cluster).loads == ()


def test_an_interrupted_load_leaves_the_queue(cluster: Cluster) -> None:
    one, other = spec_of("holder"), spec_of("impatient")
    for spec in (one, other):
        cluster.build(spec, V1)
    held, running = Event(), Event()

    def hold() -> None:
        running.set()
        assert held.wait(WAIT_S)

    command = [sys.executable, "-m", "pipeline.cli", "--config", str(cluster.settings_file), "load"]
    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(cluster.load, one, V1, Recorder(on_step={Step.INGEST: hold}))
        try:
            assert running.wait(WAIT_S)
            arguments = [str(cluster.spec_file(other)), "--version", V1]
            with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waiting:
                assert waiting.stderr is not None
                line = next(line for line in waiting.stderr if line.startswith("queue: place"))
                assert line.startswith(f"queue: place 1 of 1; now: holder {V1} by ")
                waiting.send_signal(signal.SIGINT)
                _, told = waiting.communicate(timeout=WAIT_S)
            assert waiting.returncode == 130
            assert "interrupted: the version is built, its nodes know nothing of it yet" in told
            assert [entry.dataset for entry in queue(cluster).loads] == ["holder"]
        finally:
            held.set()
        assert holder.result(WAIT_S).changed
    assert cluster.served(one) == {V1}
