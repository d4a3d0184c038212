"""`redkv load`: one version of one dataset, from its Hive table to its readers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.cli.output import INTERRUPTED, Format, OutputOption, duration, print_json, size, span
from pipeline.load.coordinator import Coordinator
from pipeline.load.coverage import Require
from pipeline.load.progress import LoadEvent, LoadReport, Step, StepBegan
from pipeline.load.waiting import Patience
from pipeline.settings import load_settings


def load(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="The dataset spec (YAML).")],
    version: Annotated[str, typer.Option(help="The version id: a date as 2026-11-22, 2026-11-22.2 for a rebuild.")],
    output: OutputOption = Format.TEXT,
    base: Annotated[
        str | None, typer.Option(help="Build a delta on this version, or on `active`, the one that clients read: only what differs moves.")
    ] = None,
    allow_shrink: Annotated[bool, typer.Option("--allow-shrink", help="Accept less than half the rows of the active version.")] = False,
    require: Annotated[
        Require, typer.Option(help="all: wait for every node; any: go on without nodes that are away, if every slot has another owner.")
    ] = Require.ALL,
    priority: Annotated[int, typer.Option(help="Of loads that wait for their turn on the cluster, those with more go first.")] = 0,
    stall_after: Annotated[
        float, typer.Option(min=1.0, help="Give up when no node that is behind made progress for so many seconds.")
    ] = Patience().stall_s_max,
) -> None:
    """Build a version, stage it on every node, ingest, verify, and activate it everywhere at once.

    Running it again goes on from where the version stands; if the version is active, nothing is changed.

    With --base, the version carries only what differs from another one; nodes make it whole. It is loaded, verified, swapped and rolled
    back like any other.

    Example: redkv load person.yaml --version 2026-11-22
    """
    settings = load_settings(context.obj)
    log = settings.log_dir / f"redkv-build-{spec.stem}-{version}.log"
    reached = Step.PLAN
    display = new_display(Console(stderr=True))

    def listen(event: LoadEvent) -> None:
        nonlocal reached
        if isinstance(event, StepBegan):
            reached = event.step
        display(event)

    try:
        with display:
            coordinator = Coordinator(settings, listen, Patience(stall_s_max=stall_after))
            report = coordinator.load(spec, version, log, allow_shrink=allow_shrink, require=require, priority=priority, base=base)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {WHAT_GOES_ON[reached]}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if output is Format.JSON:
        print_json(asdict(report))
    else:
        typer.echo(sentence(report))


_NODES_GO_ON = "nodes go on with what they were told, clients read the version before; the same command goes on from there"
WHAT_GOES_ON = {
    Step.PLAN: "nothing was changed",
    Step.BUILD: "the build was ended, the nodes know nothing of it; the same command builds again",
    Step.QUEUE: "the version is built, its nodes know nothing of it yet; the same command goes on from there, at the end of the queue",
    Step.STAGE: _NODES_GO_ON,
    Step.INGEST: _NODES_GO_ON,
    Step.VERIFY: _NODES_GO_ON,
    Step.ACTIVATE: "if the activation is written, nodes finish it by themselves; the same command tells, or goes on",
    Step.RETIRE: "the version is active on all nodes; the same command takes away older ones",
}
"""What an interruption leaves, by the step that it met."""


def new_display(console: Console) -> LiveDisplay | PlainDisplay:
    """A live table where one can be drawn, plain lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay()


def sentence(report: LoadReport) -> str:
    """A finished load for people."""
    what = f"{report.dataset} {report.version}"
    if not report.changed:
        return f"{what}: nothing to do, it is active already ({report.keys:,} keys)"
    skipped = f", {report.skipped:,} skipped by rule" if report.skipped else ""
    deleted = f", {report.deletes:,} deleted" if report.deletes and report.base is None else ""
    lines = [f"{what} is active: {report.source_rows:,} rows{skipped}, {report.keys:,} keys{deleted}, {size(report.bytes)}"]
    if report.base is not None:
        lines.append(f"a delta on {report.base}: {report.keys_put:,} keys put, {report.deletes:,} entries deleted")
    if report.mode == "upsert":
        window = f"within {duration(report.swap_window_s)} on all nodes, " if report.swap_window_s is not None else ""
        lines.append(f"its rows entered the live keys {window}where they stand until clients or later versions write: there is no way back")
    elif report.swap_window_s is not None:
        window = f"{span(report.swap_window_s)} between the first and the last shard's swap"
        lines.append(f"{report.samples_checked:,} sampled keys were read back before; {window}")
    lines.append("  ".join(f"{step} {duration(spent)}" for step, spent in report.seconds.items()))
    return "\n".join(lines)
