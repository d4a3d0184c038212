"""`redkv load`: one version of one dataset, from its Hive table to its readers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.cli.output import INTERRUPTED, Format, OutputOption, duration, print_json, size
from pipeline.load.coordinator import Coordinator
from pipeline.load.progress import LoadEvent, LoadReport, Step, StepBegan
from pipeline.load.waiting import Patience
from pipeline.settings import load_settings


def load(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="The dataset spec (YAML).")],
    version: Annotated[str, typer.Option(help="The version id: a date as 2026-11-22, 2026-11-22.2 for a rebuild.")],
    output: OutputOption = Format.TEXT,
    allow_shrink: Annotated[bool, typer.Option("--allow-shrink", help="Accept less than half the rows of the active version.")] = False,
    stall_after: Annotated[
        float, typer.Option(min=1.0, help="Give up when no node that is behind made progress for so many seconds.")
    ] = Patience().stall_s_max,
) -> None:
    """Build a version, stage it on every node, ingest, verify, and activate it everywhere at once.

    Running it again goes on from where the version stands; if the version is active, nothing is changed.

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
            report = Coordinator(settings, listen, Patience(stall_s_max=stall_after)).load(spec, version, log, allow_shrink=allow_shrink)
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
    lines = [f"{what} is active: {report.source_rows:,} rows{skipped}, {report.keys:,} keys, {size(report.bytes)}"]
    if report.swap_window_s is not None:
        lines.append(
            f"{report.samples_checked:,} sampled keys were read back before; the swap took {duration(report.swap_window_s)} on all nodes"
        )
    lines.append("  ".join(f"{step} {duration(spent)}" for step, spent in report.seconds.items()))
    return "\n".join(lines)
