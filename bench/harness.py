"""What every benchmark shares: repeated runs, a table for a person, a file for machines, an exit code for floors.

Rules:
- A result is the median of several runs; all of them are in the file, so that a reader sees the noise.
- A floor is the least (or, where less is better, the most) that counts as working. Missing one makes the benchmark exit 1.
- The file is `build/bench/NAME.json`. It says on which machine and commit it was measured: figures of different machines don't compare.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "build" / "bench"
PLAIN_COLUMNS = 110  # of a log, where there is no terminal to ask
RUNS = 5  # odd, so that the median is a run


@dataclass(frozen=True)
class Result:
    """One metric: the value of every run, the floor that their median must keep (None: only printed), and an aim that it need not reach."""

    metric: str
    unit: str
    values: tuple[float, ...]
    floor: float | None = None
    less_is_better: bool = False
    aim: float | None = None

    @property
    def median(self) -> float:
        """What counts."""
        return median(self.values)

    @property
    def missed(self) -> bool:
        """Whether the median is on the wrong side of the floor."""
        if self.floor is None:
            return False
        return self.median > self.floor if self.less_is_better else self.median < self.floor

    def to_json(self) -> dict[str, Any]:
        """The metric as it stands in the file."""
        return {
            "metric": self.metric,
            "value": self.median,
            "median": self.median,
            "unit": self.unit,
            "floor": self.floor,
            "aim": self.aim,
            "less_is_better": self.less_is_better,
            "missed": self.missed,
            "runs": len(self.values),
            "values": list(self.values),
        }


def rate(metric: str, unit: str, count: int, work: Callable[[], object], floor: float | None = None) -> Result:
    """Run `work`, which handles `count` things, once to warm up and RUNS times measured; things per second."""
    work()
    seconds = []
    for _ in range(RUNS):
        begin = perf_counter()
        work()
        seconds.append(perf_counter() - begin)
    return Result(metric, unit, tuple(count / one for one in seconds), floor)


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory_kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), 0)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def finish(name: str, results: Sequence[Result]) -> None:
    """Print the table, write the file, and end the process: 1 if a floor is missed, else 0."""
    _print(name, results)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = {
        "bench": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "results": [one.to_json() for one in results],
    }
    path = OUTPUT / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")
    missed = [one.metric for one in results if one.missed]
    if missed:
        sys.exit(f"floor missed: {', '.join(missed)}")


def _print(name: str, results: Sequence[Result]) -> None:
    table = Table(title=f"bench-{name}: median of {max(len(one.values) for one in results)} runs", title_justify="left")
    table.add_column("metric")
    for column in ("median", "least", "most", "floor"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    aims = any(one.aim is not None for one in results)
    if aims:
        table.add_column("aim", justify="right")
    for one in results:
        figures = [f"{figure:,.6g}" if figure < 1000 else f"{figure:,.0f}" for figure in (one.median, min(one.values), max(one.values))]
        bound = "" if one.floor is None else f"{'<=' if one.less_is_better else '>='} {one.floor:,.12g}"
        aim = [("" if one.aim is None else f"{one.aim:,.12g}")] if aims else []
        table.add_row(one.metric, *figures, f"{bound} missed" if one.missed else bound, one.unit, *aim, style="red" if one.missed else None)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS)
    console.print(table)
    here = machine()
    console.print(f"{here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, Python {here['python']}", highlight=False)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []  # not Linux: the machine's description is shorter


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    return asked.stdout.strip() or "unknown"
