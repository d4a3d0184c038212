"""`redkv status`: what every node holds."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import Format, OutputOption, duration, print_json, size
from pipeline.format.desired import Desired
from pipeline.format.errors import SidecarUnavailableError, UsageError
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Answer, Nodes
from pipeline.load.status import VersionStatus
from pipeline.settings import load_settings
from pipeline.store import ObjectStore

UNREACHABLE = 1
LOG_COLUMNS = 200  # of a table that goes to a file or a pipe


def status(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show every dataset's versions on every node. Exit code 1 if a node does not answer.

    Example: redkv status plane --output json
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
    desired = documents.desired()
    if dataset is not None and dataset not in desired.datasets:
        known = ", ".join(sorted(desired.datasets)) or "none"
        raise UsageError(f"cluster {settings.cluster} has no dataset {dataset!r}: it has {known}", dataset=dataset)
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        answers = nodes.statuses()
    names = [dataset] if dataset else sorted(desired.datasets)
    if output is Format.JSON:
        print_json(as_json(desired, answers, names))
    else:
        _print_text(desired, answers, names)
    if any(isinstance(answer, SidecarUnavailableError) for answer in answers.values()):
        raise typer.Exit(UNREACHABLE)


def as_json(desired: Desired, answers: dict[str, Answer], names: list[str]) -> dict[str, Any]:
    """The document of `--output json`: see docs/cli.md."""
    return {
        "cluster": desired.cluster,
        "epoch": desired.epoch,
        "datasets": {name: desired.datasets[name].model_dump(mode="json") for name in names},
        "nodes": {name: _node_json(answer, names) for name, answer in answers.items()},
    }


def _node_json(answer: Answer, names: list[str]) -> dict[str, Any]:
    if isinstance(answer, SidecarUnavailableError):
        return {
            "answers": False,
            "desired_epoch": None,
            "topology_epoch": None,
            "datasets": {},
            "error": answer.to_json(),
            "throttle": None,
        }
    return answer.model_dump(mode="json", exclude={"format_version", "node", "datasets"}) | {
        "answers": True,
        "datasets": {name: [one.model_dump(mode="json") for one in answer.datasets.get(name, ())] for name in names},
    }


def _print_text(desired: Desired, answers: dict[str, Answer], names: list[str]) -> None:
    typer.echo(f"cluster {desired.cluster}, epoch {desired.epoch}")
    for node, answer in answers.items():
        if isinstance(answer, SidecarUnavailableError):
            typer.echo(f"{node}: {answer}")
        elif answer.desired_epoch < desired.epoch:
            typer.echo(f"{node}: follows epoch {answer.desired_epoch} only; it catches up by itself")
        if not isinstance(answer, SidecarUnavailableError) and answer.error:
            typer.echo(f"{node}: {answer.error['error']}: {answer.error['message']}")
    if not names:
        typer.echo("no dataset is loaded yet: redkv load SPEC --version V")
        return
    table = Table()
    for column in ("dataset", "version", "goal", "node", "state", "files", "bytes", "keys", "idle", "error"):
        table.add_column(column, no_wrap=column != "error")
    for name in names:
        for wanted in desired.datasets[name].versions:
            for node, answer in answers.items():
                found = None if isinstance(answer, SidecarUnavailableError) else answer.find(name, wanted.version)
                cells = (name, wanted.version, str(wanted.goal), node, *_cells(answer, found))
                table.add_row(*(Text(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else LOG_COLUMNS).print(table)


def _cells(answer: Answer, one: VersionStatus | None) -> tuple[str, ...]:
    if isinstance(answer, SidecarUnavailableError):
        return ("no answer", "", "", "", "", "")
    if one is None:
        return ("not there", "", "", "", "", "")
    keys = str(sum(shard.keys for shard in one.shards.values())) if one.shards else ""
    error = f"{one.error['error']}: {one.error['message']}" if one.error else ""
    return (str(one.state), f"{one.files_done}/{one.files_total}", size(one.bytes_total), keys, duration(one.idle_s), error)
