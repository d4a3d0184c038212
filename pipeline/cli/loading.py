"""`redkv load`: one version of one dataset, from its Hive table to its readers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.cli.output import Format, OutputOption, duration, print_json, size
from pipeline.load.coordinator import Coordinator
from pipeline.load.progress import LoadReport
from pipeline.load.waiting import Patience
from pipeline.settings import load_settings


def load(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="The dataset spec (YAML).")],
    version: Annotated[str, typer.Option(help="The version id: a date as 2026-11-22, 2026-11-22.2 for a rebuild.")],
    output: OutputOption = Format.TEXT,
    allow_shrink: Annotated[bool, typer.Option("--allow-shrink", help="Accept less than half the rows of the active version.")] = False,
    stall_after: Annotated[float, typer.Option(help="Give up when no node made progress for so many seconds.")] = Patience().stall_s_max,
) -> None:
    """Build a version, stage it on every node, ingest, verify, and activate it everywhere at once.

    Running it again goes on from where the version stands; if the version is active, nothing is changed.

    Example: redkv load person.yaml --version 2026-11-22
    """
    settings = load_settings(context.obj)
    log = settings.log_dir / f"redkv-build-{spec.stem}-{version}.log"
    with LiveDisplay() if sys.stderr.isatty() else PlainDisplay() as display:
        report = Coordinator(settings, display, Patience(stall_s_max=stall_after)).load(spec, version, log, allow_shrink=allow_shrink)
    if output is Format.JSON:
        print_json(asdict(report))
    else:
        typer.echo(_sentence(report))


def _sentence(report: LoadReport) -> str:
    what = f"{report.dataset} {report.version}"
    if not report.changed:
        return f"{what}: nothing to do, it is active already ({report.keys} keys)"
    skipped = f", {report.skipped} skipped by rule" if report.skipped else ""
    lines = [
        f"{what} is active: {report.source_rows} rows{skipped}, {report.keys} keys, {size(report.bytes)}",
        f"{report.samples_checked} sampled keys were read back before, and the swap took {duration(report.swap_window_s)} on all nodes",
        "  ".join(f"{step} {duration(spent)}" for step, spent in report.seconds.items()),
    ]
    return "\n".join(lines)
