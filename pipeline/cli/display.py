"""How a load looks while it runs: a live table on a terminal, plain lines elsewhere. Both write to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.cli.output import duration, size
from pipeline.load.progress import NodeView, Step
from pipeline.load.status import VersionStatus

LINE_EVERY_S = 5.0  # plain lines: one per node at most so often while its state stays the same


def describe(view: NodeView) -> tuple[str, str, str, str, str]:
    """A node's state, files, bytes, rate and ETA (or what is wrong) for people."""
    match view:
        case None:
            return ("waiting", "", "", "", "")
        case VersionStatus():
            state = f"{view.state}: {view.error['message']}" if view.error else str(view.state)
            files = f"{view.files_done}/{view.files_total}"
            done = f"{size(view.bytes_done)} of {size(view.bytes_total)}"
            moving = view.bytes_done < view.bytes_total
            return (state, files, done, f"{size(view.rate)}/s" if moving else "", duration(view.eta_s) if moving else "")
        case _:
            return (str(view), "", "", "", "")


class PlainDisplay:
    """One line per change, for logs."""

    def __init__(self, write: Callable[[str], object] = sys.stderr.write, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._shown: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def step(self, step: Step, message: str) -> None:
        """A step begins."""
        self._shown.clear()
        self._write(f"{step}: {message}\n")

    def nodes(self, step: Step, nodes: Mapping[str, NodeView]) -> None:
        """Nodes whose state changed, and at times those whose counts did."""
        now = self._clock()
        for name, view in nodes.items():
            cells = describe(view)
            state, shown_s = self._shown.get(name, ("", float("-inf")))
            if cells[0] != state or (cells[3] and now - shown_s >= LINE_EVERY_S):
                self._shown[name] = (cells[0], now)
                rate = f" {cells[3]} ETA {cells[4]}" if cells[3] else ""
                self._write(f"{step}: {name} {cells[0]} {cells[1]} files {cells[2]}{rate}\n".replace("  files ", ""))

    def note(self, message: str) -> None:
        """A sentence worth keeping."""
        self._write(f"{message}\n")


class LiveDisplay:
    """One table that is drawn anew, for a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._title = ""

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def step(self, step: Step, message: str) -> None:
        """A step begins."""
        self._title = f"{step}: {message}"
        self._console.print(self._title)
        self._live.update("")

    def nodes(self, step: Step, nodes: Mapping[str, NodeView]) -> None:  # noqa: ARG002 -- the title holds the step
        """All nodes."""
        table = Table()
        for column in ("node", "step", "files", "bytes", "rate", "ETA"):
            table.add_column(column)
        for name, view in nodes.items():
            table.add_row(name, *describe(view))
        self._live.update(table)

    def note(self, message: str) -> None:
        """A sentence worth keeping."""
        self._console.print(message)
