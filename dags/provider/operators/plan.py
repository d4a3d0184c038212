"""The first task of a load: which version it brings, and whether it may.

Rules:
- A run has one version, whatever happens to its tasks: it is chosen once, and kept in the task's state store.
- The same date is the same version id. A rebuild is the next free number behind it: `2026-11-22.2`.
- The date is the run's logical date, but by a schedule none whose interval was not over when the run began: its data would be partial, and
  its id taken for good. Somebody who presses Trigger gets the last interval that is over.
- Runs of a DAG are one after the other. Airflow sees to it by `max_active_runs`, but not for those of backfills, whose limit is their own:
  so a run waits here until an older one has ended, if one of the two is a backfill's. Who is older goes by logical dates, so that no two
  wait for each other.
- A version that is older than the active one is not loaded, unless the run says so; neither is anything in a dry run. The tasks after
  this one are skipped then, and the log says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pendulum
from airflow.sdk import BaseOperator, BaseXCom, SkipMixin
from airflow.sdk.exceptions import AirflowRescheduleException
from airflow.sdk.execution_time.context import NEVER_EXPIRE
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.provider.failures import told
from dags.provider.flags import flag
from dags.provider.hook import DEFAULT_CONNECTION, RedkvHook
from pipeline.format.desired import DesiredDataset
from pipeline.format.errors import UsageError
from pipeline.format.layout import versions_root
from pipeline.format.records import version_order
from pipeline.load.documents import ClusterDocuments, next_rebuild
from pipeline.load.phases import active_of
from pipeline.load.progress import Step
from pipeline.spec import check_version, load_spec

if TYPE_CHECKING:
    from airflow.sdk import Context

CHOSEN = "version"  # the key in the task's state store
BACKFILL = "backfill"  # Airflow's word for the type of a run
LOOK_S = 15  # between two looks for an older run: loads take minutes, and each look is a process


class RedkvPlanOperator(BaseOperator, SkipMixin):
    """Chooses the version, checks spec, cluster and order; returns `{"dataset", "version", "active", "built"}`.

    `version` is an id, or empty for the run's date as `version_format` (strftime, in `timezone`) writes it; `schedule` is the DAG's cron
    expression, if it has one. A run without a logical date takes the version that the Asset event names that started it
    (`extra: {"version": …}`), else the moment that it began.
    """

    template_fields: Sequence[str] = ("spec", "version", "rebuild", "dry", "over_newer", "redkv_conn_id")

    def __init__(
        self,
        *,
        spec: str | Path,
        version: str = "",
        version_format: str = "%Y-%m-%d",
        timezone: str = "UTC",
        schedule: str | None = None,
        rebuild: bool | str = False,
        dry: bool | str = False,
        over_newer: bool | str = False,
        redkv_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec, self.version, self.version_format, self.timezone = str(spec), version, version_format, timezone
        self.schedule = schedule
        self.rebuild, self.dry, self.over_newer = rebuild, dry, over_newer
        self.redkv_conn_id = redkv_conn_id
        self.dataset = ""  # known when the spec is read

    def execute(self, context: Context) -> dict[str, Any]:
        """Choose and check."""
        self._await_older(context)
        with told(Step.PLAN, self.spec, self.version or "(by date)"):
            spec = load_spec(Path(self.spec))
            self.dataset = spec.dataset
            cluster = RedkvHook(self.redkv_conn_id).cluster
            version = self._chosen(context, cluster.documents, spec.dataset)
            active = active_of(cluster.documents.desired(), spec.dataset)
            reads = active.version if active else None
            if reads and not flag(self.over_newer) and version_order(version) < version_order(reads):
                why = f"{spec.dataset} {version} is older than the active version {reads}, and is not put over it unasked"
                self._skip(context, why, {"dataset": spec.dataset, "version": version, "active": reads, "built": None})
            cluster.phases.check(spec, version, over_newer=flag(self.over_newer))
            built = cluster.phases.built(spec, version) is not None
        self.log.info("%s %s: %s, clients read %s", spec.dataset, version, "built already" if built else "to be built", reads or "none yet")
        plan = {"dataset": spec.dataset, "version": version, "active": reads, "built": built}
        if flag(self.dry):
            self._skip(context, "a dry run: nothing is built or loaded", plan)
        return plan

    def _await_older(self, context: Context) -> None:
        older = context["ti"].get_previous_dagrun(state="running")
        if older is not None and BACKFILL in {context["dag_run"].run_type, older.run_type}:
            self.log.info("run %s of this DAG is older and not done: waiting for it", older.run_id)
            again = pendulum.now("UTC").add(seconds=LOOK_S)
            raise AirflowRescheduleException(again)  # type: ignore[no-untyped-call]  # Airflow's has no types

    def _chosen(self, context: Context, documents: ClusterDocuments, dataset: str) -> str:
        kept = context["task_state_store"].get(CHOSEN)
        if isinstance(kept, str):
            self.log.info("%s %s, as this run chose before", dataset, kept)
            return kept
        version = check_version(self.version or self._by_date(context))
        if flag(self.rebuild):
            version = _rebuild(documents, dataset, version)
        context["task_state_store"].set(CHOSEN, version, retention=NEVER_EXPIRE)
        return version

    def _by_date(self, context: Context) -> str:
        run = context["dag_run"]
        if run.logical_date is None:
            for events in context["triggering_asset_events"].values():
                named = [event.extra["version"] for event in events if "version" in event.extra]
                if named:
                    return str(named[-1])
        moment = named_after(self.schedule, self.timezone, run.logical_date, run.run_after)
        return moment.astimezone(ZoneInfo(self.timezone)).strftime(self.version_format)

    def _skip(self, context: Context, why: str, plan: dict[str, Any]) -> None:
        """Skip what follows. Airflow does it by an exception, which would take the return value along."""
        self.log.warning("%s: the tasks after this one are skipped", why)
        context["ti"].xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=plan)
        self.skip(ti=context["ti"], tasks=self.get_flat_relatives(upstream=False))


def named_after(schedule: str | None, timezone: str, logical_date: datetime | None, run_after: datetime) -> datetime:
    """The moment that a run is named after: its logical date, at most the begin of the last interval that was over when the run began."""
    moment = logical_date or run_after
    if schedule is None:
        return moment
    return min(
        moment, CronDataIntervalTimetable(schedule, timezone).infer_manual_data_interval(run_after=pendulum.instance(run_after)).start
    )


def _rebuild(documents: ClusterDocuments, dataset: str, version: str) -> str:
    current = documents.desired().datasets.get(dataset)
    known = set(documents.store.folders(versions_root(dataset))) | {one.version for one in (current.versions if current else ())}
    moment, _ = version_order(version)
    ours = (one for one in known if version_order(one)[0] == moment)
    finished = {one for one in ours if documents.manifest(dataset, one) is not None}  # what a failed build left is not
    return next_free(version, finished, current)


def next_free(version: str, finished: set[str], current: DesiredDataset | None) -> str:
    """The next free id of a version's date: the date itself if it was never built. An id that is marked bad is never free again.

    Raises:
        UsageError: the version is a rebuild itself.
    """
    moment, number = version_order(version)
    if number > 1:
        message = f"rebuild chooses the number itself: name the version {moment} without one, or leave rebuild out"
        raise UsageError(message, version=version)
    taken = finished | {mark.version for mark in (current.bad if current else ())}
    ours = [one for one in taken if version_order(one)[0] == moment]
    return next_rebuild(max(ours, key=version_order)) if ours else version
