"""`redkv rollback`, `redkv activate`, `redkv mark-bad`: which of the versions that are there clients read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.loading import new_display
from pipeline.cli.output import INTERRUPTED, Format, OutputOption, duration, print_json, span
from pipeline.load.swap import Swapper, SwapReport
from pipeline.load.waiting import Patience
from pipeline.settings import load_settings

DatasetArgument = Annotated[str, typer.Argument(help="The dataset.")]
VersionArgument = Annotated[str, typer.Argument(help="The version id.")]
StallOption = Annotated[float, typer.Option(min=1.0, help="Give up when no node that is behind made progress for so many seconds.")]

STALL_S = Patience().stall_s_max

WHAT_GOES_ON = "if the swap is written, nodes finish it by themselves; the same command with --to tells, or goes on"


def rollback(
    context: typer.Context,
    dataset: DatasetArgument,
    to: Annotated[str | None, typer.Option("--to", help="The version to go to; by default the newest good one before the active.")] = None,
    mark_bad: Annotated[bool, typer.Option("--mark-bad", help="The version that is left never comes back.")] = False,
    stall_after: StallOption = STALL_S,
    output: OutputOption = Format.TEXT,
) -> None:
    """Let clients read an older version again. Nodes that still hold it only swap.

    Example: redkv rollback person --mark-bad
    """
    _swap(context, lambda swapper: swapper.rollback(dataset, to, mark_bad=mark_bad), stall_after, output)


def activate(
    context: typer.Context,
    dataset: DatasetArgument,
    version: VersionArgument,
    stall_after: StallOption = STALL_S,
    output: OutputOption = Format.TEXT,
) -> None:
    """Let clients read a version that they read before, older or newer than the active one.

    Example: redkv activate person 2026-11-22
    """
    _swap(context, lambda swapper: swapper.activate(dataset, version), stall_after, output)


def mark_bad(context: typer.Context, dataset: DatasetArgument, version: VersionArgument, output: OutputOption = Format.TEXT) -> None:
    """Mark a version that clients do not read: it is never loaded, activated or rolled back to.

    Example: redkv mark-bad person 2026-11-22
    """
    changed = Swapper(load_settings(context.obj), lambda _: None).mark_bad(dataset, version)
    if output is Format.JSON:
        print_json({"dataset": dataset, "version": version, "changed": changed})
    else:
        typer.echo(f"{dataset} {version} {'is marked bad' if changed else 'was marked bad before: nothing to do'}")


def _swap(context: typer.Context, work: Callable[[Swapper], SwapReport], stall_after: float, output: Format) -> None:
    display = new_display(Console(stderr=True))
    try:
        with display:
            report = work(Swapper(load_settings(context.obj), display, Patience(stall_s_max=stall_after)))
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {WHAT_GOES_ON}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if output is Format.JSON:
        print_json(asdict(report))
    else:
        typer.echo(sentence(report))


def sentence(report: SwapReport) -> str:
    """A swap for people."""
    what = f"{report.dataset} {report.version}"
    if not report.changed:
        return f"{what}: nothing to do, it is active already"
    left = f" instead of {report.left}" if report.left else ""
    marked = ", which is marked bad" if report.marked_bad else ""
    window = "" if report.swap_window_s is None else f"; {span(report.swap_window_s)} between the first and the last shard's swap"
    return f"{what} is active{left}{marked}{window}; {duration(sum(report.seconds.values()))} in all"
