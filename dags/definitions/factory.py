"""Dataset specs to DAGs.

Rules:
- `NAME.yaml` becomes the DAG `redkv_NAME`: plan → partition → build → stage → ingest → verify → activate → retire.
- One run of a dataset at a time (`max_active_runs`). Steps of all datasets share a pool.
- A spec that is wrong takes no other dataset's DAG away: it becomes a DAG whose only task fails and says what is wrong. It keeps the
  dataset's schedule and deadline, or runs daily if those can't be read: a load that stops is seen.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, chain
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from dags.definitions.dagspec import SUFFIX, DagSpec, asset_of, load_dag_spec
from dags.provider.alerts import deadline_missed
from dags.provider.failures import load_failed
from dags.provider.operators.build import RedkvBuildOperator
from dags.provider.operators.misfit import MisfitOperator
from dags.provider.operators.plan import RedkvPlanOperator
from dags.provider.operators.steps import (
    RedkvActivateOperator,
    RedkvIngestOperator,
    RedkvRetireOperator,
    RedkvStageOperator,
    RedkvVerifyOperator,
)
from dags.provider.sensors import HivePartitionSensor
from pipeline.format.errors import SpecError
from pipeline.spec import DatasetSpec, load_spec

RETRY_MINUTES_MAX = 60  # waits double from one try to the next; longer ones would outlast most deadlines
FILE_STEM = re.compile(r"[\w.-]{1,200}")  # of which Airflow takes a DAG id, with ours before it; it has 250 characters at most
STEM_READ_MAX = 100  # of a stem that is none, for people
UNREADABLE = DagSpec(schedule="@daily", start=dt.date(2025, 1, 1))  # of a DAG that fails, if nobody knows when; since any day that is over
WAITING_POOL = "default_pool"  # of tasks that only wait or look: they crowd no cluster

VERSION = "{{ ti.xcom_pull(task_ids='plan')['version'] }}"
DATE = "{{ ti.xcom_pull(task_ids='plan')['version'].partition('.')[0] }}"
OVER_NEWER = "{{ params.over_newer }}"
REQUIRE = "{{ params.require }}"


def dags_of(folder: Path) -> dict[str, DAG]:
    """The DAGs of all dataset specs in a folder, by id; none if there is no such folder."""
    specs = sorted(path for path in folder.glob("*.yaml") if not path.name.endswith(SUFFIX))
    return {dag.dag_id: dag for dag in map(dag_of, specs)}


def dag_of(path: Path) -> DAG:
    """The DAG of one dataset; one that fails and says why, if there can be no other."""
    when = UNREADABLE
    try:
        when = load_dag_spec(path.with_name(path.stem + SUFFIX))
        dag = _load(_id(path), path, load_spec(path), when)
        dag.validate()  # type: ignore[no-untyped-call]  # Airflow's has no types
        return dag
    except SpecError as wrong:
        why = str(wrong)
    except Exception as wrong:  # noqa: BLE001 -- whatever Airflow holds against one DAG, the others stay
        why = f"{path}: no DAG can be made of it: {type(wrong).__name__}: {wrong}"
    try:
        return _misfit(path, when, why)
    except Exception:  # noqa: BLE001 -- the very schedule or deadline is what Airflow can't take
        return _misfit(path, UNREADABLE, why)


def params(when: DagSpec) -> dict[str, Param]:
    """What a run can be told when it is started by hand."""
    return {
        "version": Param(None, type=["null", "string"], title="Version", description="An id as 2026-11-22; by default the run's date."),
        "rebuild": Param(False, type="boolean", title="Rebuild", description="Build the date anew, under its next id (2026-11-22.2)."),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would be loaded, and load nothing."),
        "over_newer": Param(False, type="boolean", title="Over a newer one", description="Load it though clients read a newer version."),
        "base": Param(
            when.base, type=["null", "string"], title="Base", description="A version id, or active: build only what differs from it."
        ),
        "require": Param("all", enum=["all", "any"], title="Nodes", description="any: go on without nodes that are away."),
        "allow_shrink": Param(
            False, type="boolean", title="Allow shrinking", description="Accept less than half of the active one's rows."
        ),
    }


def _load(dag_id: str, path: Path, spec: DatasetSpec, when: DagSpec) -> DAG:
    with DAG(
        dag_id,
        schedule=_schedule(when),
        start_date=_start(when),
        catchup=when.catchup,
        max_active_runs=1,
        params=params(when),
        deadline=_deadline(spec.dataset, when),
        default_args=_defaults(spec.dataset, when),
        tags=["redkv", spec.dataset],
        doc_md=_words(spec, when),
    ) as dag:
        common: dict[str, Any] = {"redkv_conn_id": when.connection, "version": VERSION}
        step: dict[str, Any] = {**common, "dataset": spec.dataset, "over_newer": OVER_NEWER, "require": REQUIRE}
        step |= {"deferrable": True, "pool": when.pool}
        plan = RedkvPlanOperator(
            task_id="plan",
            spec=path,
            version="{{ params.version or '' }}",
            version_format=when.version_format,
            timezone=when.timezone,
            schedule=when.schedule,
            rebuild="{{ params.rebuild }}",
            dry="{{ params.dry_run }}",
            over_newer=OVER_NEWER,
            redkv_conn_id=when.connection,
        )
        gated: dict[str, Any] = {**step, "allow_shrink": "{{ params.allow_shrink }}"}
        build = RedkvBuildOperator(
            task_id="build",
            spec=path,
            base="{{ params.base or '' }}",
            over_newer=OVER_NEWER,
            conn_id=when.spark_connection,
            name=dag_id,
            pool=when.pool,
            **common,
        )
        chain(
            plan,
            *_partition(spec, when),
            build,
            RedkvStageOperator(task_id="stage", **gated),
            RedkvIngestOperator(task_id="ingest", **step),
            RedkvVerifyOperator(task_id="verify", **gated),
            RedkvActivateOperator(task_id="activate", outlets=[asset_of(when.connection, spec.dataset)], **step),
            RedkvRetireOperator(task_id="retire", **step),
        )
    return dag


def _partition(spec: DatasetSpec, when: DagSpec) -> list[HivePartitionSensor]:
    partition = when.partition_of(DATE)
    if partition is None:
        return []
    return [
        HivePartitionSensor(
            task_id="partition",
            table=(spec.of_changes() if spec.changes and when.base else spec).source.table,
            partition=partition,
            redkv_conn_id=when.connection,
            deferrable=True,
            timeout=dt.timedelta(hours=when.partition_hours),
            execution_timeout=None,
            pool=WAITING_POOL,
        )
    ]


def _schedule(when: DagSpec) -> Any:
    if when.after:
        return [one.asset() for one in when.after]
    return CronDataIntervalTimetable(when.schedule, timezone=when.timezone) if when.schedule else None


def _start(when: DagSpec) -> dt.datetime:
    return dt.datetime.combine(when.start, dt.time(), ZoneInfo(when.timezone))


def _defaults(dataset: str, when: DagSpec) -> dict[str, Any]:
    return {
        "retries": when.retries,
        "retry_delay": dt.timedelta(minutes=when.retry_minutes),
        "retry_exponential_backoff": True,
        "max_retry_delay": dt.timedelta(minutes=max(RETRY_MINUTES_MAX, when.retry_minutes)),
        "execution_timeout": dt.timedelta(hours=when.step_hours),
        "on_failure_callback": partial(load_failed, dataset=dataset, redkv_conn_id=when.connection),
    }


def _deadline(dataset: str, when: DagSpec) -> DeadlineAlert | None:
    if when.deadline_minutes is None:
        return None
    callback = AsyncCallback(deadline_missed, kwargs={"dataset": dataset, "redkv_conn_id": when.connection})
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, dt.timedelta(minutes=when.deadline_minutes), callback)


def _words(spec: DatasetSpec, when: DagSpec) -> str:
    waits = f"Waits for `{when.partition}`. " if when.partition else ""
    return (
        f"Loads `{spec.source.table}` as keys `{spec.key}` (mode {spec.mode}). {waits}Clients read the version before until all nodes swap."
    )


def _misfit(path: Path, when: DagSpec, why: str) -> DAG:
    with DAG(
        _misfit_id(path.stem),
        schedule=_schedule(when),
        start_date=_start(when),
        catchup=False,
        max_active_runs=1,
        deadline=_deadline(path.stem, when),
        default_args={"on_failure_callback": partial(load_failed, dataset=path.stem, redkv_conn_id=when.connection)},
        tags=["redkv", "wrong spec"],
        doc_md=f"This spec is wrong, so nothing is loaded:\n\n{why}",
    ) as dag:
        MisfitOperator(task_id="spec", why=why)
    return dag


def _id(path: Path) -> str:
    if not FILE_STEM.fullmatch(path.stem):
        raise SpecError(f"{path}: its DAG would have no valid name: rename the file, to letters, digits, dots, dashes and underscores")
    return f"redkv_{path.stem}"


def _misfit_id(stem: str) -> str:
    """The dataset's own id; of a file whose name can't be one, an id that no other file has."""
    if FILE_STEM.fullmatch(stem):
        return f"redkv_{stem}"
    return f"redkv_{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)[:STEM_READ_MAX]}-{crc32(stem.encode('utf-8', 'surrogateescape')):08x}"
