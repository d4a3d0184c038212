"""`redkv status`: what every node holds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import INTERRUPTED, LOG_COLUMNS, UNREACHABLE, Format, OutputOption, duration, print_json, size
from pipeline.format.desired import Desired
from pipeline.format.errors import SidecarUnavailableError
from pipeline.format.queue import LoadQueue
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Answer, Nodes
from pipeline.load.queue import Queue
from pipeline.load.status import VersionStatus
from pipeline.load.turn import queued_line
from pipeline.load.wayback import dataset_of
from pipeline.settings import load_settings
from pipeline.store import ObjectStore

WATCH_S = 1.0  # between two looks of --watch


def status(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until interrupted.")] = False,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show every dataset's versions on every node. Exit code 1 if a node does not answer.

    Example: redkv status plane --watch
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        if watch:
            _watch(lambda: _look(documents, nodes, dataset), output)
        seen = _look(documents, nodes, dataset)
    if output is Format.JSON:
        print_json(as_json(*seen))
    else:
        _console().print(_shown(*seen))
    _, _, answers, _ = seen
    if any(isinstance(answer, SidecarUnavailableError) for answer in answers.values()):
        raise typer.Exit(UNREACHABLE)


Seen = tuple[Desired, LoadQueue, dict[str, Answer], list[str]]
"""The desired state, the queue, what the nodes say, and the datasets to be shown."""


def _look(documents: ClusterDocuments, nodes: Nodes, dataset: str | None) -> Seen:
    desired = documents.desired()
    if dataset is not None:
        dataset_of(desired, dataset)
    nodes.topology = documents.topology()
    queue = Queue(documents.store, documents.cluster).read()
    return desired, queue, nodes.statuses(), [dataset] if dataset else sorted(desired.datasets)


def _watch(look: Callable[[], Seen], output: Format) -> NoReturn:
    """Show it again and again until interrupted: in place on a terminal, one after the other elsewhere; JSON a line each."""
    console = _console()
    try:
        with Live(console=console, auto_refresh=False) if console.is_terminal and output is Format.TEXT else nullcontext() as live:
            while True:
                seen = look()
                if output is Format.JSON:
                    typer.echo(json.dumps(as_json(*seen)))
                elif live is not None:
                    live.update(_shown(*seen), refresh=True)
                else:
                    console.print(_shown(*seen))
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def as_json(desired: Desired, queue: LoadQueue, answers: dict[str, Answer], names: list[str]) -> dict[str, Any]:
    """The document of `--output json`: see docs/cli.md."""
    return {
        "cluster": desired.cluster,
        "epoch": desired.epoch,
        "queue": [one.model_dump(mode="json", exclude={"beat"}) for one in (*queue.running, *queue.waiting)],
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


def _shown(desired: Desired, queue: LoadQueue, answers: dict[str, Answer], names: list[str]) -> Group:
    lines = [f"cluster {desired.cluster}, epoch {desired.epoch}"]
    lines += [f"load {queued_line(one)}" for one in (*queue.running, *queue.waiting)]
    for node, answer in answers.items():
        if isinstance(answer, SidecarUnavailableError):
            lines.append(f"{node}: {answer}")
        elif answer.desired_epoch < desired.epoch:
            lines.append(f"{node}: follows epoch {answer.desired_epoch} only; it catches up by itself")
        if not isinstance(answer, SidecarUnavailableError) and answer.error:
            lines.append(f"{node}: {answer.error['error']}: {answer.error['message']}")
    if not names:
        lines.append("no dataset is loaded yet: redkv load SPEC --version V")
        return Group(*map(_line, lines))
    table = Table()
    for column in ("dataset", "version", "goal", "node", "state", "files", "bytes", "keys", "idle", "error"):
        table.add_column(column, no_wrap=column != "error")
    for name in names:
        for wanted in desired.datasets[name].versions:
            for node, answer in answers.items():
                found = None if isinstance(answer, SidecarUnavailableError) else answer.find(name, wanted.version)
                cells = (name, wanted.version, str(wanted.goal), node, *_cells(answer, found))
                table.add_row(*(Text(cell) for cell in cells))
    return Group(*map(_line, lines), table)


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ignore")  # unwrapped, so that paths can be copied


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else LOG_COLUMNS)


def _cells(answer: Answer, one: VersionStatus | None) -> tuple[str, ...]:
    if isinstance(answer, SidecarUnavailableError):
        return ("no answer", "", "", "", "", "")
    if one is None:
        return ("not there", "", "", "", "", "")
    keys = str(sum(shard.keys for shard in one.shards.values())) if one.shards else ""
    error = f"{one.error['error']}: {one.error['message']}" if one.error else ""
    return (str(one.state), f"{one.files_done}/{one.files_total}", size(one.bytes_total), keys, duration(one.idle_s), error)
