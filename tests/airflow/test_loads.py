"""Whole runs of DAGs on real parts: Spark, Hive's metastore, SeaweedFS, three nodes of two shards."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.triggers.base import BaseTrigger

from dags.definitions.factory import dag_of
from dags.provider.hook import RedkvHook
from dags.provider.links import LoadStatusLink
from dags.provider.metastore import has_partition
from dags.provider.triggers import PartitionTrigger
from pipeline.format.crashpoints import AT, MARK
from pipeline.format.errors import StoreUnavailableError, TableNotFoundError, UsageError
from pipeline.store import ObjectStore
from tests.airflow.runs import run, run_of, states
from tests.airflow.world import DAGS, REPOSITORY, SPECS, TABLE, World

DAY, NEXT, THIRD = "2026-11-21", "2026-11-22", "2026-11-23"
RUN_S_MAX = 120
FOLLOWERS = """
from airflow.sdk import DAG

from dags.provider.operators.rollback import RedkvRollbackOperator
from dags.provider.sensors import VersionActiveSensor

with DAG("followers", schedule=None) as dag:
    active = VersionActiveSensor(task_id="active", dataset="back", version="NEXT", deferrable=True)
    active >> RedkvRollbackOperator(task_id="rollback", dataset="back", mark_bad=True)
"""
STEPS = ("plan", "build", "stage", "ingest", "verify", "activate", "retire")


@pytest.fixture
def store(world: World) -> ObjectStore:
    """The stack's store."""
    return ObjectStore(RedkvHook().cluster.settings.store)


def test_a_run_builds_by_spark_when_its_partition_is_there_and_clients_read_every_row(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    trigger = PartitionTrigger(table=TABLE, partition=f"ds={DAY}", redkv_conn_id="redkv_default", poll_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        upstream = pool.submit(world.table, DAY)
        while not upstream.done() and not _is_table():
            time.sleep(0.1)
        assert asyncio.run(_first_event(trigger)) == {"error": None}, "it waited for the partition"
        upstream.result()
    world.spec("person", {"partition": "ds=${date}", "partition_hours": 0.05})
    ended = run("redkv_person", DAY)
    assert ended.state == "success", capfd.readouterr().out
    assert states(ended) == dict.fromkeys((*STEPS, "partition"), "success")
    assert world.served("person") == {DAY}
    xcoms = {one.task_id: one for one in ended.get_task_instances()}
    activated = xcoms["activate"].xcom_pull(task_ids="activate")
    assert (activated["keys"], activated["version"]) == (100, DAY)
    link = xcoms["stage"].xcom_pull(task_ids="stage", key=LoadStatusLink().xcom_key)
    assert httpx.get(link).json()["node"] == "node-1"
    assert [one["by"] for one in world.redkv("versions", "person", "--history")["history"] if one["action"] == "activate"] == [
        f"airflow:redkv_person:{ended.run_id}"
    ]
    capfd.readouterr()
    dag = dag_of(SPECS / "person.yaml")
    for task_id, version, reads in (
        ("partition", None, f"clients read person {DAY}, as before"),
        ("build", NEXT, f"clients read person {DAY}, as before"),
        ("activate", DAY, f"the activation of person {DAY} is written, nodes finish it; until then some may read the version before"),
    ):
        task: Any = dag.get_task(task_id)
        task.version = version
        (callback,) = task.on_failure_callback
        callback({"task": task, "exception": None})
        assert f"task {task_id} failed; {reads}" in capfd.readouterr().out


def _is_table() -> bool:
    """Whether the metastore has the table: it comes a moment before its partition."""
    try:
        return not has_partition(RedkvHook().cluster.settings.metastore_uris, TABLE, "ds=never")
    except TableNotFoundError:
        return False


async def _first_event(trigger: BaseTrigger) -> Any:
    return await anext(event.payload async for event in trigger.run())


def test_partitions_are_asked_of_the_metastore(world: World) -> None:
    uris = RedkvHook().cluster.settings.metastore_uris
    assert [has_partition(uris, TABLE, f"ds={day}") for day in (DAY, "1999-01-01")] == [True, False]
    assert has_partition(f"thrift://127.0.0.1:1,{uris}", TABLE, f"ds={DAY}")
    with pytest.raises(TableNotFoundError, match=r"no table features\.nothing"):
        has_partition(uris, "features.nothing", "ds=1")
    with pytest.raises(StoreUnavailableError, match="no Hive metastore answers"):
        has_partition("thrift://127.0.0.1:1", TABLE, "ds=1")
    with pytest.raises(UsageError, match=r"'today' is none: write e\.g\. ds="):
        has_partition(uris, TABLE, "today")
    for partition in (f"dt={DAY}", "dt=1999-01-01"):
        with pytest.raises(UsageError, match=rf"table {TABLE} is partitioned by ds, in this order, not by dt"):
            has_partition(uris, TABLE, partition)


@pytest.mark.full
def test_order_dry_runs_and_rebuilds(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """A newer version swaps; an older one is skipped unless told; a date is one version, unless a rebuild is asked for."""
    world.spec("order")
    for version in (DAY, NEXT, f"{NEXT}.2"):
        world.build("order", version)
    dry = states(run("redkv_order", NEXT, {"dry_run": True}))
    assert dry == {"plan": "success", **dict.fromkeys(STEPS[1:], "skipped")}
    assert world.served("order") == {""}
    assert run("redkv_order", NEXT).state == "success"
    older = states(run("redkv_order", DAY))
    assert older == {"plan": "success", **dict.fromkeys(STEPS[1:], "skipped")}
    assert f"order {DAY} is older than the active version {NEXT}" in capfd.readouterr().out
    assert world.served("order") == {NEXT}
    assert run("redkv_order", DAY, {"over_newer": True}).state == "success"
    assert world.served("order") == {DAY}
    again = run("redkv_order", THIRD, {"version": NEXT, "rebuild": True, "dry_run": True})
    chosen = again.get_task_instances()[0].xcom_pull(task_ids="plan")
    assert chosen["version"] == f"{NEXT}.3", "the next free number: .2 is taken"
    assert run("redkv_order", THIRD, {"version": f"{NEXT}.2"}).state == "success"
    assert world.served("order") == {f"{NEXT}.2"}


def test_a_corrupted_file_ends_red_with_node_and_file_and_clients_read_on(
    world: World, store: ObjectStore, capfd: pytest.CaptureFixture[str]
) -> None:
    world.spec("damaged", {"retries": 2})
    for version in (DAY, NEXT):
        world.build("damaged", version)
    assert run("redkv_damaged", DAY).state == "success"
    victim = next(one.key for one in store.list(f"datasets/damaged/versions/{NEXT}/") if one.key.endswith(".sst"))
    raw = bytearray(store.get(victim).data)
    raw[len(raw) // 2] ^= 1
    store.delete(victim)
    store.create(victim, bytes(raw))
    capfd.readouterr()
    ended = run("redkv_damaged", NEXT)
    told = capfd.readouterr().out
    assert (ended.state, states(ended)["stage"], states(ended)["activate"]) == ("failed", "failed", "upstream_failed")
    assert re.search(rf"step stage of damaged {NEXT} failed on node-\d: ChecksumMismatchError: .*{victim}", told), told
    assert f"task stage failed; clients read damaged {DAY}, as before" in told
    assert world.served("damaged") == {DAY}
    held = {one["version"] for one in world.redkv("versions", "damaged")["versions"] if one["goal"]}
    assert held == {DAY}, "the damaged version was withdrawn from the nodes"


def test_a_task_killed_in_mid_load_goes_on_when_it_runs_again(world: World, tmp_path: Path) -> None:
    world.spec("killed")
    world.build("killed", DAY)
    mark = tmp_path / "mark"
    environment = {**os.environ, AT: "coordinator.ingest.written", MARK: str(mark)}
    command = [sys.executable, "-m", "tests.airflow.rundag", "redkv_killed", DAY]
    first = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert first.returncode == -signal.SIGKILL, first.stdout + first.stderr
    assert mark.exists()
    assert world.served("killed") == {""}
    again = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert again.stdout.rstrip().endswith("state: success"), again.stdout + again.stderr
    assert f"killed {DAY} is built already" in again.stdout
    assert world.served("killed") == {DAY}


@pytest.mark.full
def test_deltas_are_built_by_spark_on_what_clients_read(world: World) -> None:
    world.table(NEXT, THIRD)
    world.spec("delta", {"base": "active"})
    for version, base in ((NEXT, None), (THIRD, NEXT)):
        ended = run("redkv_delta", version)
        assert ended.state == "success"
        built = next(one for one in ended.get_task_instances() if one.task_id == "build").xcom_pull(task_ids="build")
        assert (built["version"], built["base"]) == (version, base)
        assert world.served("delta") == {version}


@pytest.mark.full
def test_a_version_that_shrank_below_what_a_table_of_changes_left_is_refused(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """How many keys there are is known to the nodes alone."""
    world.spec("shrunk", changes={"table": TABLE})
    world.build("shrunk", DAY)
    world.build("shrunk", NEXT, 20, DAY)
    world.build("shrunk", THIRD, 30)
    for version, given in ((DAY, {}), (NEXT, {"base": "active"})):
        assert run("redkv_shrunk", version, given).state == "success"
    assert world.served("shrunk") == {DAY, NEXT}
    ended = run("redkv_shrunk", THIRD)
    assert (ended.state, states(ended)["verify"]) == ("failed", "failed")
    assert "ShrunkVersionError" in capfd.readouterr().out
    assert world.served("shrunk") == {DAY, NEXT}
    assert run("redkv_shrunk", THIRD, {"allow_shrink": True}).state == "success"
    assert world.served("shrunk", rows=30) == {THIRD}


@pytest.mark.full
def test_nodes_that_are_away_and_rows_that_enter_the_live_keys(world: World) -> None:
    """`require` and upserts reach the coordinator's steps."""
    world.spec("entered", mode="upsert")
    world.build("entered", DAY)
    assert run("redkv_entered", DAY, {"require": "any"}).state == "success"
    assert world.served("entered") == {DAY}
    cleared = run("redkv_entered", DAY)
    assert cleared.state == "success", "a second run finds all of it done"


@pytest.mark.full
def test_a_sensor_lets_others_follow_and_a_rollback_goes_back_once(world: World) -> None:
    world.spec("back")
    for version in (DAY, NEXT):
        world.build("back", version)
        assert run("redkv_back", version).state == "success"
    (DAGS / "followers.py").write_text(FOLLOWERS.replace("NEXT", NEXT), encoding="utf-8")
    ended = run_of(DagBag(DAGS).dags["followers"], NEXT)
    assert states(ended) == {"active": "success", "rollback": "success"}
    assert world.served("back") == {DAY}
    report = ended.get_task_instances()[0].xcom_pull(task_ids="rollback")
    assert (report["version"], report["left"], report["marked_bad"]) == (DAY, NEXT, True)
