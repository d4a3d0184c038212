"""Which version a run brings."""

from __future__ import annotations

import datetime as dt

import pytest

from dags.definitions.factory import dag_of
from dags.provider.operators.plan import RedkvPlanOperator, named_after, next_free
from pipeline.format.desired import BadVersion, DesiredDataset
from pipeline.format.errors import UsageError
from tests.airflow.world import World

DAILY, MONDAYS, HOURLY = "0 3 * * *", "0 3 * * 1", "0 * * * *"


@pytest.mark.parametrize(
    ("schedule", "timezone", "logical_date", "run_after", "named"),
    [
        pytest.param(DAILY, "UTC", "2026-11-22T03:00", "2026-11-23T03:00", "2026-11-22T03:00", id="of the schedule"),
        pytest.param(DAILY, "UTC", "2026-11-23T10:00", "2026-11-23T10:00", "2026-11-22T03:00", id="Trigger"),
        pytest.param(DAILY, "UTC", None, "2026-11-23T10:00", "2026-11-22T03:00", id="Trigger without a logical date"),
        pytest.param(DAILY, "UTC", "2026-11-23T02:00", "2026-11-23T02:00", "2026-11-21T03:00", id="Trigger before the hour"),
        pytest.param(DAILY, "UTC", "2026-11-20T00:00", "2026-11-23T10:00", "2026-11-20T00:00", id="an explicit date"),
        pytest.param(DAILY, "UTC", "2026-11-22T00:00", "2026-11-22T10:00", "2026-11-21T03:00", id="an explicit date that is not over"),
        pytest.param(DAILY, "UTC", "2027-01-01T00:00", "2026-11-23T10:00", "2026-11-22T03:00", id="an explicit date to come"),
        pytest.param(DAILY, "Europe/Berlin", "2026-11-23T02:30", "2026-11-23T02:30", "2026-11-22T02:00", id="of a time zone"),
        pytest.param(MONDAYS, "UTC", "2026-11-25T10:00", "2026-11-25T10:00", "2026-11-16T03:00", id="a week"),
        pytest.param(HOURLY, "UTC", "2026-11-23T10:17", "2026-11-23T10:17", "2026-11-23T09:00", id="an hour"),
        pytest.param(None, "UTC", "2026-11-23T10:00", "2026-11-23T10:01", "2026-11-23T10:00", id="no schedule"),
        pytest.param(None, "UTC", None, "2026-11-23T10:01", "2026-11-23T10:01", id="neither schedule nor logical date"),
    ],
)
def test_a_run_is_named_after_no_interval_that_is_not_over(
    schedule: str | None, timezone: str, logical_date: str | None, run_after: str, named: str
) -> None:
    asked = _moment(logical_date) if logical_date else None
    assert named_after(schedule, timezone, asked, _moment(run_after)) == _moment(named)


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_the_plan_of_a_dag_knows_its_schedule() -> None:
    plan = dag_of(World().spec("daily", {"schedule": DAILY, "start": dt.date(2026, 11, 1), "timezone": "Europe/Berlin"})).get_task("plan")
    assert isinstance(plan, RedkvPlanOperator)
    assert (plan.schedule, plan.timezone) == (DAILY, "Europe/Berlin")


@pytest.mark.parametrize(
    ("finished", "bad", "free"),
    [
        (set(), [], "2026-11-22"),
        ({"2026-11-21", "2026-11-22T06"}, [], "2026-11-22"),
        ({"2026-11-22", "2026-11-22.9", "2026-11-22.10"}, [], "2026-11-22.11"),
        ({"2026-11-22"}, ["2026-11-22.2"], "2026-11-22.3"),
        (set(), ["2026-11-22"], "2026-11-22.2"),
    ],
)
def test_a_rebuild_takes_an_id_that_was_neither_built_nor_marked_bad(finished: set[str], bad: list[str], free: str) -> None:
    marks = tuple(BadVersion(version=one, build_id="b", by="somebody", at_ms=1) for one in bad)
    assert next_free("2026-11-22", finished, DesiredDataset(prefix="person:", bad=marks)) == free
    with pytest.raises(UsageError, match="rebuild chooses the number itself: name the version 2026-11-22"):
        next_free("2026-11-22.2", finished, None)
