"""Runs of DAGs by `dag.test()`: every task here, every trigger in line."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG

from dags.definitions.factory import dag_of
from tests.airflow.world import SPECS


def run(dag_id: str, day: str, conf: dict[str, Any] | None = None) -> DagRun:
    """One run of the DAG of a spec in the folder."""
    return run_of(dag_of(SPECS / f"{dag_id.removeprefix('redkv_')}.yaml"), day, conf)


def run_of(dag: DAG, day: str, conf: dict[str, Any] | None = None) -> DagRun:
    """One run of a DAG."""
    moment = pendulum.parse(day)
    assert isinstance(moment, pendulum.DateTime)
    ended: DagRun = dag.test(logical_date=moment, run_conf=conf)
    return ended


def states(ended: DagRun) -> dict[str, str]:
    """The tasks' states, by task."""
    return {one.task_id: str(one.state) for one in ended.get_task_instances()}
