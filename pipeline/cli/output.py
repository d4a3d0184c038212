"""What commands share in printing: the choice of text or JSON, and sizes for people."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How a command prints its answer."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="text for people, json for programs.")]

INTERRUPTED = 130  # as shells say it: 128 + SIGINT
UNREACHABLE = 1  # a node does not answer
LOG_COLUMNS = 200  # of a table that goes to a file or a pipe

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=1))


def size(count: float) -> str:
    """Bytes for people, e.g. `1.5 MiB`."""
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count, unit = count / _STEP, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def span(seconds: float) -> str:
    """A short span for people: a swap's is milliseconds."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def duration(seconds: float | None) -> str:
    """Seconds for people, e.g. `3.2 s`, `4 min`, `?` if unknown."""
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
