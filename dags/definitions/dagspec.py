"""When and how a dataset is loaded: what `NAME.dag.yaml` says beside the dataset's spec `NAME.yaml`.

Rules:
- It is a file of its own: a version remembers the dataset's spec it was built from, and when it is loaded is no part of that.
- Without the file a dataset has a DAG that is started by hand.

Example::

    schedule: "0 3 * * *"       # a run for each day, when the day is over and it is three o'clock
    start: 2026-11-01
    partition: ds=${date}       # of the spec's table; the run waits until the metastore has it
    deadline_minutes: 120
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pendulum
import yaml
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowTimetableInvalid
from airflow.timetables.interval import CronDataIntervalTimetable
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from dags.provider.hook import DEFAULT_CONNECTION
from pipeline.format.errors import SpecError
from pipeline.format.records import told
from pipeline.shapes import Part
from pipeline.spec import DATE_PLACEHOLDER, check_version

SUFFIX = ".dag.yaml"
EPOCH = dt.date(2026, 1, 1)  # of DAGs without a schedule: Airflow asks for a start all the same
OWN_URI = re.compile(r"redkv://([^/]+)/([^/]+)")
ANY_MOMENT = pendulum.datetime(2026, 11, 22, 13, 5, 9)  # what schedules and formats are tried on

Hours = Annotated[float, Field(gt=0)]


class After(Part):
    """An Asset that a run waits for. Airflow knows an Asset by name and URI together, and has one name per URI: whoever emits it says it.

    Our own have the name that `asset_of` gives them; others that of their URI, if they are given no other. (A reference by URI alone, as
    Airflow has it too, brings runs no events, so that none could say which version is there.)
    """

    uri: str
    name: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.asset()
        except ValueError as wrong:
            raise ValueError(f"{self.uri!r} is no URI of an Asset: write e.g. redkv://redkv_default/person ({wrong})") from wrong
        return self

    def asset(self) -> Asset:
        """The Asset."""
        if self.name is not None:
            return Asset(name=self.name, uri=self.uri)
        ours = OWN_URI.fullmatch(self.uri)
        return asset_of(*ours.groups()) if ours else Asset(uri=self.uri)


def asset_of(connection: str, dataset: str) -> Asset:
    """The Asset of a dataset on a cluster: new whenever clients read another version."""
    return Asset(name=f"redkv {connection} {dataset}", uri=f"redkv://{connection}/{dataset}")


def _after(entry: object) -> object:
    return {"uri": entry} if isinstance(entry, str) else entry


class DagSpec(Part):
    """See the module's example.

    `schedule` is a cron expression in `timezone`, whose runs begin when their interval is over and are named after its begin; `after` are
    Assets instead, all of which must be new, each as its URI or as `{name: …, uri: …}`. `catchup` makes up for what was missed since
    `start`. `version_format` (strftime) writes the version id, e.g. `%Y-%m-%dT%H` for hours. `partition` is waited for, for
    `partition_hours` at most; `${date}` in it is the version id without the number of a rebuild. With `base: active` a version is a delta
    on what clients read; if the spec has a table of changes, that is the table whose partition is waited for. Each step is tried again
    `retries` times, and takes `step_hours` at most. `deadline_minutes` after a run was queued, an alert tells that it is not done. `pool`
    is where the steps wait for a place.
    """

    schedule: str | None = None
    after: tuple[Annotated[After, BeforeValidator(_after)], ...] = ()
    start: dt.date = EPOCH
    timezone: str = "UTC"
    catchup: bool = False
    version_format: str = "%Y-%m-%d"
    partition: str | None = None
    partition_hours: Hours = 24
    base: str | None = None
    retries: Annotated[int, Field(ge=0)] = 3
    retry_minutes: Annotated[float, Field(ge=0)] = 5
    step_hours: Hours = 4
    deadline_minutes: Annotated[float, Field(gt=0)] | None = None
    connection: str = DEFAULT_CONNECTION
    spark_connection: str = "spark_default"
    pool: str = "redkv"

    @field_validator("schedule")
    @classmethod
    def _check_cron(cls, schedule: str | None) -> str | None:
        try:
            if schedule:
                CronDataIntervalTimetable(schedule, "UTC").infer_manual_data_interval(run_after=ANY_MOMENT)
        except (AirflowTimetableInvalid, ValueError) as wrong:  # ValueError: of a date that never comes, as 31 February
            raise ValueError(f"{schedule!r} is no cron expression: write e.g. 0 3 * * * ({wrong})") from wrong
        return schedule or None

    @field_validator("version_format")
    @classmethod
    def _check_version_format(cls, pattern: str) -> str:
        try:
            check_version(ANY_MOMENT.strftime(pattern))
        except SpecError as wrong:
            raise ValueError(f"{pattern!r} makes no version ids: {wrong.message}") from wrong
        return pattern

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as unknown:
            raise ValueError(f"{name!r} is no time zone: write e.g. Europe/Berlin") from unknown
        return name

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule and self.after:
            raise ValueError("schedule and after exclude each other: a run begins by the clock, or when its Assets are new")
        if self.schedule and self.start == EPOCH:
            raise ValueError("schedule needs start: write the first day, e.g. start: 2026-11-01")
        return self

    def partition_of(self, version: str) -> str | None:
        """The partition of a version, which may be a template."""
        return self.partition and self.partition.replace(DATE_PLACEHOLDER, version)


def load_dag_spec(path: Path) -> DagSpec:
    """Read the file, or take what stands without one.

    Raises:
        SpecError: it can't be read, is not YAML, or something in it is wrong.
    """
    if not path.exists():
        return DagSpec()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return DagSpec.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as unreadable:
        raise SpecError(f"{path}: can't be read: {unreadable}", where=str(path)) from unreadable
    except ValidationError as wrong:
        lines = [told(one, "field") for one in wrong.errors()]
        raise SpecError(f"{path}: " + "; ".join(lines), where=str(path), errors=lines) from wrong
