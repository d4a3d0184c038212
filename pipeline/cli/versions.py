"""`redkv versions`: what there is of a dataset, where it is, and who did what when."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import LOG_COLUMNS, UNREACHABLE, Format, OutputOption, print_json, size
from pipeline.cli.swapping import DatasetArgument
from pipeline.format.audit import AuditRecord
from pipeline.load.catalog import CatalogVersion, catalog
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.load.status import NodeStatus
from pipeline.settings import load_settings
from pipeline.store import ObjectStore

HISTORY_SHOWN = 50


def versions(
    context: typer.Context,
    dataset: DatasetArgument,
    history: Annotated[bool, typer.Option("--history", help="Who did what to which version, when.")] = False,
    last: Annotated[int, typer.Option(min=1, help="Of the history, so many of the newest records.")] = HISTORY_SHOWN,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show all versions of a dataset: source, size, marks, and their state on every node. Exit code 1 if a node does not answer.

    Example: redkv versions person --history
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
    desired = documents.desired()
    if history:
        records = documents.trail.history(dataset, desired, last)
        if output is Format.JSON:
            print_json({"dataset": dataset, "history": [one.model_dump(mode="json", exclude={"format_version"}) for one in records]})
        else:
            _print_history(dataset, records)
        return
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        answers = nodes.statuses()
    found = catalog(documents, desired, dataset, answers)
    if output is Format.JSON:
        print_json({"dataset": dataset, "cluster": settings.cluster, "epoch": desired.epoch, "versions": [asdict(one) for one in found]})
    else:
        _print_versions(found)
    if not all(isinstance(one, NodeStatus) for one in answers.values()):
        raise typer.Exit(UNREACHABLE)


def _print_versions(found: Sequence[CatalogVersion]) -> None:
    table = Table("version", "mark", "source", "rows", "bytes", "built", "store", "nodes")
    for one in found:
        where, on = f"where {one.filter}" if one.filter else "", f"on {one.base}" if one.base else ""
        source = " ".join(part for part in (one.source, where, on) if part)
        rows, held = f"{one.rows:,}" if one.rows is not None else "", size(one.bytes) if one.bytes is not None else ""
        built = moment(one.built_at_ms) if one.built_at_ms is not None else ""
        mark = f"bad, by {one.bad_by}" if one.mark == "bad" else one.mark
        cells = (one.version, mark, source, rows, held, built, "yes" if one.in_store else "no", _on_nodes(one))
        table.add_row(*(Text(cell) for cell in cells))
    _console().print(table)


def _on_nodes(one: CatalogVersion) -> str:
    """One word if all nodes say the same."""
    states = {name: node.state for name, node in one.nodes.items()}
    if len(set(states.values())) == 1:
        return next(iter(states.values()))
    return ", ".join(f"{name} {state}" for name, state in states.items())


def _print_history(dataset: str, records: Sequence[AuditRecord]) -> None:
    if not records:
        typer.echo(f"nothing was ever done with {dataset} on this cluster")
        return
    table = Table("when (UTC)", "who", "action", "version", "instead of", "epoch", "detail")
    for one in records:
        epoch = "" if one.epoch is None else str(one.epoch)
        cells = (moment(one.at_ms), one.by, str(one.action), one.version or "", one.before or "", epoch, one.detail)
        table.add_row(*(Text(cell) for cell in cells))
    _console().print(table)


def moment(at_ms: int) -> str:
    """A moment for people."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else LOG_COLUMNS)
