"""A whole Airflow (scheduler, API server, DAG processor, triggerer) at work on the local stack: what `dag.test()` can't show."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

from examples.airflow.server import Api, LocalAirflow
from pipeline.format.crashpoints import AT, MARK
from tests.airflow.world import HOME, SPECS, World

DAY, NEXT = "2026-11-21", "2026-11-22"
FILLED = ("2024-10-01", "2024-10-02")  # long ago: Airflow fills only what is over
RUN_S_MAX = 180.0
LOOK_S = 0.2
SUBMIT = "org.apache.spark.deploy.SparkSubmit"  # of the JVM that stays; one that works out its command line comes before it
KILLED = "stage"

Found = TypeVar("Found")

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a process leaves which dies where it is told to."""
    return tmp_path_factory.mktemp("crash") / "mark"


@pytest.fixture(scope="module")
def airflow(world: World, mark: Path) -> Iterator[LocalAirflow]:
    """A running Airflow, of which the first process that has written a stage dies there."""
    again = {"retries": 2, "retry_minutes": 0.02}  # on a busy machine Airflow itself fails tasks that it sees defer and go on at once
    world.spec("serial", again)
    for version in (DAY, NEXT):
        world.build("serial", version)
    for dataset, when in (("upstream", {}), ("downstream", {"after": ["redkv://redkv_default/upstream"]})):
        world.spec(dataset, {**when, **again})
        world.build(dataset, DAY)
    world.spec("late", {"deadline_minutes": 0.01, "partition": "ds=${date}", **again})
    world.table("2026-11-01", *FILLED)
    world.spec("filled", {"schedule": "0 0 * * *", "start": dt.date.fromisoformat(FILLED[0]), "partition": "ds=${date}"})
    for version in FILLED:
        world.build("filled", version)
    crash = {AT: f"coordinator.{KILLED}.written", MARK: str(mark)}
    running = LocalAirflow(HOME / "server", SPECS, world.settings_path, crash)
    running.start(os.environ["PATH"])
    try:
        api = running.api()
        api.set_pool("redkv", 2)
        for dataset in ("serial", "late", "upstream", "downstream", "filled"):
            api.await_dag(f"redkv_{dataset}")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def api(airflow: LocalAirflow) -> Api:
    """Its REST API."""
    return airflow.api()


def test_two_runs_of_one_dataset_are_one_after_the_other_and_a_killed_task_goes_on(
    airflow: LocalAirflow, api: Api, world: World, mark: Path
) -> None:
    runs = [api.trigger("redkv_serial", f"{day}T00:00:00Z") for day in (DAY, NEXT)]
    assert [api.await_run("redkv_serial", one, RUN_S_MAX) for one in runs] == ["success", "success"], _logs(airflow)
    first, second = (api.run("redkv_serial", one) for one in runs)
    assert dt.datetime.fromisoformat(first["end_date"]) <= dt.datetime.fromisoformat(second["start_date"])
    assert world.served("serial") == {NEXT}
    killed = api.tasks("redkv_serial", runs[0])[KILLED]
    assert (killed["state"], killed["try_number"]) == ("success", 2)
    assert mark.exists(), "the first process died"
    assert [event["extra"]["version"] for event in api.assets() if event["uri"] == "redkv://redkv_default/serial"] == [DAY, NEXT]


def test_a_dag_after_another_ones_dataset_loads_the_version_that_became_active(airflow: LocalAirflow, api: Api, world: World) -> None:
    run_id = api.trigger("redkv_upstream", "2026-11-23T00:00:00Z", {"version": DAY})
    assert api.await_run("redkv_upstream", run_id, RUN_S_MAX) == "success", _logs(airflow)
    _await(lambda: next(iter(api.runs("redkv_downstream")), None), "the run of the DAG that comes after")
    (follower,) = api.runs("redkv_downstream")
    assert api.await_run("redkv_downstream", follower["dag_run_id"], RUN_S_MAX) == "success", _logs(airflow)
    assert world.served("downstream") == {DAY}


def test_steps_that_waited_in_the_triggerer_have_links_to_a_node(api: Api) -> None:
    (run,) = api.runs("redkv_downstream")
    for step in ("stage", "ingest", "activate"):
        link = api.links("redkv_downstream", run["dag_run_id"], step)["Load status"]
        assert link, step
        assert httpx.get(link).json()["node"] == "node-1"


def test_runs_of_a_backfill_are_one_after_the_other(airflow: LocalAirflow, api: Api, world: World) -> None:
    """Airflow would let both work at once."""
    api.backfill("redkv_filled", f"{FILLED[0]}T00:00:00Z", f"{FILLED[1]}T00:00:00Z", 2)
    runs = sorted(one["dag_run_id"] for one in api.runs("redkv_filled") if one["run_type"] == "backfill")
    assert [api.await_run("redkv_filled", one, RUN_S_MAX) for one in runs] == ["success", "success"], _logs(airflow)
    first = api.run("redkv_filled", runs[0])
    begun = api.tasks("redkv_filled", runs[1])["build"]["start_date"]
    assert dt.datetime.fromisoformat(first["end_date"]) <= dt.datetime.fromisoformat(begun)
    assert "is older and not done: waiting for it" in api.log("redkv_filled", runs[1], "plan")
    assert world.served("filled") == {FILLED[1]}


def test_clearing_a_step_of_a_finished_run_takes_it_again_and_changes_nothing(api: Api, world: World) -> None:
    run_id = api.trigger("redkv_serial", "2026-11-23T00:00:00Z", {"version": NEXT})
    assert api.await_run("redkv_serial", run_id, RUN_S_MAX) == "success"
    before = world.redkv("status", "serial")["epoch"]
    api.clear("redkv_serial", run_id, "verify")
    assert api.await_run("redkv_serial", run_id, RUN_S_MAX) == "success"
    assert f"serial {NEXT} is active, and as it was built" in api.log("redkv_serial", run_id, "verify", 2)
    assert (world.redkv("status", "serial")["epoch"], world.served("serial")) == (before, {NEXT})


def test_a_triggerer_that_dies_takes_no_wait_with_it_and_a_missed_deadline_is_told(airflow: LocalAirflow, api: Api, world: World) -> None:
    run_id = api.trigger("redkv_late", "2026-11-02T00:00:00Z")
    api.await_task("redkv_late", run_id, "partition", "deferred", RUN_S_MAX)
    airflow.restart("triggerer", signal.SIGKILL)
    world.table("2026-11-02")
    assert api.await_run("redkv_late", run_id, RUN_S_MAX) == "success", _logs(airflow)
    assert api.tasks("redkv_late", run_id)["partition"]["try_number"] == 1
    assert world.served("late") == {"2026-11-02"}
    assert "the load of late missed its deadline" in _logs(airflow)


def test_a_run_that_is_marked_failed_ends_its_spark_job(api: Api) -> None:
    run_id = api.trigger("redkv_late", "2026-11-01T00:00:00Z", {"over_newer": True})
    api.await_task("redkv_late", run_id, "build", "running", RUN_S_MAX)
    job = _await(lambda: _job("2026-11-01"), "the Spark job")
    api.mark_failed("redkv_late", run_id)
    _, left = psutil.wait_procs([job], RUN_S_MAX)
    assert not left
    assert _job("2026-11-01") is None


def _job(version: str) -> psutil.Process | None:
    """The JVM that builds a version."""
    for one in psutil.process_iter(["cmdline"]):
        words = one.info["cmdline"] or []
        if SUBMIT in words and version in words:
            return one
    return None


def _await(look: Callable[[], Found | None], what: str) -> Found:
    deadline = time.monotonic() + RUN_S_MAX
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(LOOK_S)
    return found


def _logs(airflow: LocalAirflow) -> str:
    files = [path for path in Path(airflow.folder).rglob("*.log") if path.is_file()]
    return "\n".join(path.read_text(errors="replace") for path in files)
