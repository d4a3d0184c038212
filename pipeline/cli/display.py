"""How a load looks while it runs: a live table on a terminal, plain lines elsewhere. Both write to standard error.

Texts come from errors and paths, so none of them is read as rich's markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import duration, size
from pipeline.load.progress import BuildSeen, LoadEvent, NodesSeen, NodeView, Noted, QueueSeen, Step, StepBegan, StepEnded
from pipeline.load.status import VersionStatus
from pipeline.load.turn import queue_line

LINE_EVERY_S = 5.0  # plain lines: one per node at most so often while its state stays the same
IDLE_SHOWN_S = 5.0  # below it, nothing moving is the ordinary pause between two pieces of work
COLUMNS = ("node", "state", "doing", "files", "bytes", "rate", "ETA")


@dataclass(frozen=True, slots=True)
class NodeCells:
    """A node for people. `rate` is empty while no bytes are on their way."""

    state: str
    doing: str = ""
    files: str = ""
    bytes: str = ""
    rate: str = ""
    eta: str = ""


def describe(view: NodeView) -> NodeCells:
    """One node's part of a load."""
    match view:
        case None:
            return NodeCells("waiting")
        case VersionStatus():
            moving = view.bytes_done < view.bytes_total
            return NodeCells(
                state=f"{view.state}: {view.error['message']}" if view.error else str(view.state),
                doing=_doing(view),
                files=f"{view.files_done}/{view.files_total}",
                bytes=f"{size(view.bytes_done)} of {size(view.bytes_total)}",
                rate=f"{size(view.rate)}/s" if moving else "",
                eta=duration(view.eta_s) if moving else "",
            )
        case _:
            return NodeCells(str(view))


def _doing(view: VersionStatus) -> str:
    step = "" if view.step == view.state else view.step
    if not step or view.idle_s < IDLE_SHOWN_S:
        return step
    return f"{step}, idle for {duration(view.idle_s)}"


def node_line(step: Step, name: str, cells: NodeCells) -> str:
    """One node in one plain line."""
    parts = [f"{step}: {name} {cells.state}"]
    parts += [cells.doing] if cells.doing else []
    parts += [f"{cells.files} files, {cells.bytes}"] if cells.files else []
    parts += [f"{cells.rate}, ETA {cells.eta}"] if cells.rate else []
    return "; ".join(parts)


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

    def __call__(self, event: LoadEvent) -> None:
        """Show one event."""
        match event:
            case StepBegan():
                self._shown.clear()
                self._line(f"{event.step}: {event.message}")
            case StepEnded():
                self._line(f"{event.step}: ended after {duration(event.seconds)}")
            case BuildSeen():
                if self._due("build", ""):
                    self._line(f"build: {duration(event.seconds)}{f', {event.stage}' if event.stage else ''}")
            case QueueSeen():
                text = queue_line(event.place, event.queue)
                if self._due("queue", text, still=True):
                    self._line(f"queue: {text}")
            case NodesSeen():
                self._nodes(event)
            case Noted():
                self._line(event.message)

    def _nodes(self, event: NodesSeen) -> None:
        for name, view in event.nodes.items():
            cells = describe(view)
            if self._due(name, cells.state, still=not cells.rate and not cells.doing):
                self._line(node_line(event.step, name, cells))

    def _due(self, name: str, state: str, *, still: bool = False) -> bool:
        """Whether a line is due: the state is a new one, or something moves and the last line is LINE_EVERY_S old."""
        now = self._clock()
        shown, shown_s = self._shown.get(name, (None, now))
        if state == shown and (still or now - shown_s < LINE_EVERY_S):
            return False
        self._shown[name] = (state, now)
        return True

    def _line(self, text: str) -> None:
        self._write(f"{text}\n")


class LiveDisplay:
    """One table that is drawn anew, for a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)  # every event draws: looks come at POLL_S
        self._title = ""

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: LoadEvent) -> None:
        """Show one event."""
        match event:
            case StepBegan():
                self._title = f"{event.step}: {event.message}"
                self._live.update(Text(self._title), refresh=True)
            case StepEnded():
                self._live.update(Text(""), refresh=True)
                self._print(f"{self._title}, {duration(event.seconds)}")
            case BuildSeen():
                self._live.update(Text(f"{self._title}\n{duration(event.seconds)}  {event.stage}"), refresh=True)
            case QueueSeen():
                self._live.update(Text(f"{self._title}\n{queue_line(event.place, event.queue)}"), refresh=True)
            case NodesSeen():
                self._live.update(Group(Text(self._title), _table(event.nodes)), refresh=True)
            case Noted():
                self._print(event.message)

    def _print(self, text: str) -> None:
        self._console.print(Text(text))


def _table(nodes: Mapping[str, NodeView]) -> Table:
    table = Table()
    for column in COLUMNS:
        table.add_column(column)
    for name, view in nodes.items():
        cells = describe(view)
        texts = (name, cells.state, cells.doing, cells.files, cells.bytes, cells.rate, cells.eta)
        table.add_row(*(Text(text) for text in texts))
    return table
