"""The benchmarks' harness: medians, floors in both directions, the file, the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import harness
from bench.harness import Result


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "OUTPUT", tmp_path / "build" / "bench")


@pytest.mark.parametrize(
    ("floor", "less_is_better", "missed"),
    [(None, False, False), (2.0, False, False), (2.1, False, True), (2.0, True, False), (1.9, True, True)],
)
def test_a_floor_is_kept_by_the_median(floor: float | None, less_is_better: bool, missed: bool) -> None:
    assert Result("m", "s", (9.0, 1.0, 2.0), floor, less_is_better).missed is missed


def test_the_file_says_what_was_measured_and_where(tmp_path: Path) -> None:
    harness.finish("name", [Result("speed", "rows/s", (3.0, 1.0, 2.0), 1.0)])
    report = json.loads((tmp_path / "build" / "bench" / "name.json").read_text())
    (result,) = report["results"]
    assert (result["metric"], result["value"], result["unit"], result["floor"]) == ("speed", 2.0, "rows/s", 1.0)
    assert (result["runs"], result["median"], result["values"]) == (3, 2.0, [3.0, 1.0, 2.0])
    assert report["machine"]["cores"] > 0


def test_a_missed_floor_fails_after_the_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="floor missed: speed"):
        harness.finish("name", [Result("speed", "rows/s", (1.0,), 2.0)])
    assert (tmp_path / "build" / "bench" / "name.json").exists()


def test_a_rate_is_things_per_second() -> None:
    calls: list[int] = []
    result = harness.rate("r", "calls/s", 1, lambda: calls.append(1))
    assert len(calls) == harness.RUNS + 1
    assert len(result.values) == harness.RUNS
    assert result.median > 0
