"""What the DAG folder holds: a DAG per spec, nothing that warns, and no spec that takes others away."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, Asset, AssetAll, CronDataIntervalTimetable
from airflow.sdk.definitions.deadline import DeadlineReference
from airflow.sdk.definitions.timetables.simple import NullTimetable

from dags.definitions.dagspec import asset_of, load_dag_spec
from dags.definitions.factory import dag_of, dags_of
from pipeline.format.errors import SpecError
from tests.airflow.world import DAGS, REPOSITORY, World

IMPORT_S_MAX = 120.0
STEPS = ["plan", "build", "stage", "ingest", "verify", "activate", "retire"]
SCHEDULED = {"schedule": "0 3 * * *", "start": dt.date(2026, 11, 1), "partition": "ds=${date}", "deadline_minutes": 90}


@pytest.mark.parametrize("folder", [DAGS, REPOSITORY / "dags" / "definitions"], ids=["the example of the docs", "dags/definitions"])
def test_every_spec_is_a_dag_that_imports_without_errors(folder: Path) -> None:
    World().spec("daily", SCHEDULED)
    World().spec("byhand")
    World().spec("after", {"after": ["s3://upstream/table"]})
    bag = DagBag(folder)
    assert (bag.import_errors, bag.captured_warnings) == ({}, {})
    assert {"redkv_daily", "redkv_byhand", "redkv_after"} <= set(bag.dags)
    assert in_order(bag.dags["redkv_daily"]) == ["plan", "partition", *STEPS[1:]]
    assert in_order(bag.dags["redkv_byhand"]) == STEPS


IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.filterwarnings("error", module=r"dags\\b|unusual_prefix_")  # ours, and those that Airflow makes of files in its folder
import dags
for one in pkgutil.walk_packages(dags.__path__, "dags."):
    importlib.import_module(one.name)
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert bag.dags and not bag.import_errors, bag.import_errors
"""


def test_nothing_of_ours_warns_when_it_is_imported() -> None:
    """In a process that has imported none of it yet: a warning of a module comes when that is imported first."""
    World().spec("daily", SCHEDULED)
    command = [sys.executable, "-c", IMPORT_ALL, str(DAGS)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=IMPORT_S_MAX, check=False)
    assert ended.returncode == 0, ended.stderr


def in_order(dag: DAG) -> list[str]:
    """The tasks of a DAG that does not branch."""
    following = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    found = [task.task_id for task in dag.roots]
    while following[found[-1]]:
        found += following[found[-1]]
    return found


def test_a_dag_is_what_its_spec_says() -> None:
    dag = dag_of(World().spec("daily", {**SCHEDULED, "retries": 2, "retry_minutes": 1, "step_hours": 0.5, "pool": "loads"}))
    assert dag.max_active_runs == 1, "two runs of one dataset are one after the other"
    assert not dag.catchup
    assert isinstance(dag.deadline, list)
    assert [(one.reference, one.interval) for one in dag.deadline] == [(DeadlineReference.DAGRUN_QUEUED_AT, dt.timedelta(minutes=90))]
    stage = dag.get_task("stage")
    assert (stage.retries, stage.retry_delay, stage.execution_timeout) == (2, dt.timedelta(minutes=1), dt.timedelta(minutes=30))
    assert {task.task_id: task.pool for task in dag.tasks} == {
        **dict.fromkeys(STEPS, "loads"),
        "plan": "default_pool",
        "partition": "default_pool",
    }
    assert dag.get_task("activate").outlets == [asset_of("redkv_default", "daily")]


def test_every_task_that_fails_says_what_clients_read() -> None:
    """The process of the task may be dead: the callback knows dataset and cluster without it."""
    for task in dag_of(World().spec("daily", {**SCHEDULED, "connection": "other"})).tasks:
        (callback,) = callbacks_of(task)
        assert isinstance(callback, partial), task.task_id
        assert callback.keywords == {"dataset": "daily", "redkv_conn_id": "other"}


def callbacks_of(task: Any) -> list[Any]:
    """What is called when a task fails: Airflow's types know one function, or a list, or none."""
    return list(task.on_failure_callback)


def test_assets_that_a_dag_waits_for_are_those_that_others_emit() -> None:
    """Airflow knows an Asset by name and URI together."""
    upstream = dag_of(World().spec("upstream", {"connection": "other"})).get_task("activate").outlets
    named = {"name": "table", "uri": "s3://upstream/named"}
    after = dag_of(World().spec("after", {"after": ["redkv://other/upstream", "s3://upstream/table", named]}))
    condition = after.timetable.asset_condition
    assert isinstance(condition, AssetAll)
    assert list(condition.objects) == [*upstream, Asset("s3://upstream/table"), Asset("table", "s3://upstream/named")]


SPEC = "dataset: wrong\nsource: {table: a.b}\nkey: 'wrong:${id}'\ntype: hash\nmode: replace\n"


@pytest.mark.parametrize(
    ("stem", "spec", "when", "message"),
    [
        pytest.param("wrong", "dataset: wrong\n", "", "field source is missing", id="spec"),
        pytest.param("wrong", SPEC, "after: ['']", "'' is no URI of an Asset", id="empty URI"),
        pytest.param("wrong", SPEC, "after: [airflow://x]", "'airflow://x' is no URI of an Asset", id="reserved URI"),
        pytest.param("wrong", SPEC, "schedule: 0 25 * * *\nstart: 2026-11-01", "'0 25 \\* \\* \\*' is no cron expression", id="hour"),
        pytest.param("wrong", SPEC, "schedule: 0 3 31 2 *\nstart: 2026-11-01", "is no cron expression", id="day that never comes"),
        pytest.param("wrong", SPEC, "version_format: '%d.%m'", "'%d.%m' makes no version ids", id="format"),
        pytest.param("wrong", SPEC, "step_hours: 1.0e+15", "no DAG can be made of it: OverflowError", id="what Airflow can't take"),
        pytest.param("wrong", SPEC, "deadline_minutes: 1.0e+15", "no DAG can be made of it: OverflowError", id="deadline"),
        pytest.param("wr ong", SPEC, "", "its DAG would have no valid name: rename the file", id="file name"),
        pytest.param("w" * 240, SPEC, "", "its DAG would have no valid name: rename the file", id="long file name"),
    ],
)
def test_a_wrong_spec_is_a_dag_that_says_so_beside_the_others(tmp_path: Path, stem: str, spec: str, when: str, message: str) -> None:
    for name, text in ((stem, spec), ("wr_ong", SPEC)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / f"{stem}.dag.yaml").write_text(when, encoding="utf-8")
    dags = dags_of(tmp_path)
    assert "plan" in dags.pop("redkv_wr_ong").task_ids
    (dag,) = dags.values()
    assert re.search(message, str(dag.doc_md))
    assert dag.task_ids == ["spec"]
    assert "wrong spec" in dag.tags
    dag.validate()  # type: ignore[no-untyped-call]  # Airflow's has no types


def test_a_spec_that_breaks_still_runs_when_it_should_and_goes_red(tmp_path: Path) -> None:
    spec, when = tmp_path / "late.yaml", tmp_path / "late.dag.yaml"
    spec.write_text("dataset: late\n", encoding="utf-8")
    when.write_text(yaml.safe_dump({**SCHEDULED, "timezone": "Europe/Berlin"}), encoding="utf-8")
    broken = dag_of(spec)
    assert broken.timetable == CronDataIntervalTimetable("0 3 * * *", timezone="Europe/Berlin")
    assert (broken.start_date, broken.catchup) == (dt.datetime(2026, 11, 1, tzinfo=ZoneInfo("Europe/Berlin")), False)
    assert isinstance(broken.deadline, list)
    assert [one.interval for one in broken.deadline] == [dt.timedelta(minutes=90)]
    when.write_text("after: [redkv://redkv_default/person]", encoding="utf-8")
    assert "redkv://redkv_default/person" in str(dag_of(spec).timetable.asset_condition)
    when.write_text("schedule: 0 25 * * *", encoding="utf-8")
    assert dag_of(spec).timetable == CronDataIntervalTimetable("@daily", timezone="UTC")
    when.unlink()
    assert isinstance(dag_of(spec).timetable, NullTimetable), "it was started by hand before"


def test_a_folder_of_specs_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDKV_DAG_SPECS", str(tmp_path / "away"))
    bag = DagBag(REPOSITORY / "dags" / "definitions")
    assert "there is no such folder here" in str(bag.import_errors)


def test_the_example_of_the_docs_is_a_dag_spec(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "airflow.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "person.dag.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_dag_spec(path).partition_of("2026-11-22") == "ds=2026-11-22"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule: '0 3 * * *'", "schedule needs start"),
        ("schedule: '0 3 * * *'\nstart: 2026-11-01\nafter: [s3://x]", "exclude each other"),
        ("timezone: Mars", "'Mars' is no time zone: write e.g. Europe/Berlin"),
        ("shedule: '0 3 * * *'", "shedule: there is no such field"),
        ("retries: -1", "retries: "),
        (": :", "can't be read"),
        ("schedule: '@once'\nstart: 2026-11-01", "schedule: '@once' is no cron expression: write e.g. 0 3"),
        ("after: [' ']", "after.0: ' ' is no URI of an Asset: write e.g. redkv://"),
        ("version_format: '%d.%m'", "version_format: '%d.%m' makes no version ids"),
    ],
)
def test_a_wrong_dag_spec_is_told_by_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "person.dag.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message) as failed:
        load_dag_spec(path)
    assert str(path) in str(failed.value)
