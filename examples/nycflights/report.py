"""What the demo prints at its end: tables for a person."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.nycflights.compare import Comparison
from examples.nycflights.traffic import Seen

PLAIN_COLUMNS = 130  # of a log, where there is no terminal to ask
STEPS = ("build", "stage", "ingest", "verify", "activate")

console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS, highlight=False)


@dataclass(frozen=True)
class Compared:
    """One dataset's comparison: rows of its table, keys that the cluster counts, and what was found."""

    dataset: str
    version: str
    rows: int
    counted: int
    found: Comparison


def print_loads(loads: Sequence[dict[str, Any]]) -> None:
    """The loads, from `redkv load --output json`."""
    table = _table("Loads", "dataset", "version")
    for column in ("rows", "skipped", "keys", "MB", *(f"{step} s" for step in STEPS), "swap s"):
        table.add_column(column, justify="right")
    for one in loads:
        spent = [_seconds(one["seconds"].get(step)) for step in STEPS]
        counts = [f"{one[name]:,}" for name in ("source_rows", "skipped", "keys")]
        table.add_row(one["dataset"], one["version"], *counts, f"{one['bytes'] / 1e6:.2f}", *spent, _seconds(one["swap_window_s"]))
    console.print(table)


def print_readers(seen: Seen) -> None:
    """Client latencies by phase."""
    table = _table("Readers (redis-py, one process), milliseconds", "while")
    for column in ("live GETs", "p50", "p99", "loaded keys", "p50", "p99"):
        table.add_column(column, justify="right")
    for name, phase in seen.phases.items():
        table.add_row(name, *_latencies(phase.live), *_latencies(phase.loaded))
    console.print(table)
    console.print(f"{seen.reads:,} reads, {seen.failed} errors or wrong replies")
    for words in seen.failures:
        console.print(f"  {words}", markup=False)


def print_comparison(compared: Sequence[Compared]) -> None:
    """Every row against the cluster."""
    table = _table("Every row of every table, read back through RedisCluster", "dataset", "version")
    for column in ("rows", "keys", "elements", "keys counted by the shards", "mismatches"):
        table.add_column(column, justify="right")
    for one in compared:
        found = one.found
        figures = [f"{figure:,}" for figure in (one.rows, found.keys, found.elements, one.counted, found.mismatches)]
        table.add_row(one.dataset, one.version, *figures)
    console.print(table)
    for one in compared:
        for words in one.found.shown:
            console.print(f"  {one.dataset}: {words}", markup=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _seconds(spent: float | None) -> str:
    return "" if spent is None else f"{spent:.2f}"


def _latencies(seconds: list[float]) -> tuple[str, str, str]:
    if not seconds:
        return "0", "", ""
    ordered = sorted(seconds)
    median, high = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.50, 0.99))
    return f"{len(ordered):,}", f"{1000 * median:.2f}", f"{1000 * high:.2f}"
