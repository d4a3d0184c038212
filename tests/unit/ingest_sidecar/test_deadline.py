"""The floor that a spec's deadline asks for."""

from __future__ import annotations

import pytest

from ingest_sidecar.deadline import CHECK_BYTES_S, FLOOR_MAX, FLOOR_MIN, deadline_ms, floor

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("minutes_left", "fetch_s", "check_s", "pace"),
    [
        (60, 0, 0, 0.0),  # nothing left to do
        (60, 30, 30, FLOOR_MIN),
        (10, 60, 60, 0.2),
        (10, 0, 180, 0.3),
        (10, 600, 0, FLOOR_MAX),
        (-1, 1, 0, FLOOR_MAX),
    ],
)
def test_it_is_the_share_that_the_work_left_needs_within_its_bounds(minutes_left: int, fetch_s: float, check_s: int, pace: float) -> None:
    assert floor(minutes_left * MINUTE_MS, 0, fetch_s, int(check_s * CHECK_BYTES_S)) == pytest.approx(pace)


def test_units_of_an_upsert_are_work_without_a_check_after() -> None:
    assert floor(10 * MINUTE_MS, 0, 120.0) == pytest.approx(0.2)


def test_without_a_deadline_it_asks_for_nothing() -> None:
    assert deadline_ms({}, 5) is None
    assert deadline_ms({"deadline_minutes": None}, 5) is None
    assert floor(None, 0, 1000, 1 << 40) == 0.0


def test_it_counts_from_the_build() -> None:
    assert deadline_ms({"deadline_minutes": 2}, 1000) == 1000 + 2 * MINUTE_MS
