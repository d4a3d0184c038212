"""`redkv pause`, `resume`, `retry`, `cancel`: an operator's word about one version, to all nodes."""

from __future__ import annotations

import typer

from pipeline.cli.output import UNREACHABLE, Format, OutputOption, print_json
from pipeline.cli.swapping import DatasetArgument, VersionArgument
from pipeline.load import control
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.settings import load_settings
from pipeline.store import ObjectStore


def pause(context: typer.Context, dataset: DatasetArgument, version: VersionArgument, output: OutputOption = Format.TEXT) -> None:
    """Stop the work on a version where it stands, on all nodes; what is staged stays. Exit code 1 if a node did not take it.

    Example: redkv pause person 2026-11-22
    """
    _say(context, "pause", dataset, version, output)


def resume(context: typer.Context, dataset: DatasetArgument, version: VersionArgument, output: OutputOption = Format.TEXT) -> None:
    """Go on with a version that was paused, on all nodes.

    Example: redkv resume person 2026-11-22
    """
    _say(context, "resume", dataset, version, output)


def retry(context: typer.Context, dataset: DatasetArgument, version: VersionArgument, output: OutputOption = Format.TEXT) -> None:
    """Begin anew with a version that failed, at once, on all nodes.

    Example: redkv retry person 2026-11-22
    """
    _say(context, "retry", dataset, version, output)


def cancel(context: typer.Context, dataset: DatasetArgument, version: VersionArgument, output: OutputOption = Format.TEXT) -> None:
    """Take a version that clients never read from all nodes, or end a rollback's bringing of one; whoever waits hears who did it.

    Example: redkv cancel person 2026-11-22
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster, name=settings.author)
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        left = control.cancel(documents, nodes, dataset, version)
    if output is Format.JSON:
        print_json({"dataset": dataset, "version": version, "action": "cancel", "behind": left})
        return
    typer.echo(f"{dataset} {version} is on its way no longer; what clients read is as before")
    if left:
        typer.echo(f"{', '.join(left)} did not confirm that yet: see `redkv status {dataset}`", err=True)


def _say(context: typer.Context, word: control.Word, dataset: str, version: str, output: Format) -> None:
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster, name=settings.author)
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        answers = control.say(documents, nodes, word, dataset, version)
    if output is Format.JSON:
        told = {name: refused.to_json() if refused else None for name, refused in answers.items()}
        print_json({"dataset": dataset, "version": version, "action": word, "nodes": told})
    else:
        for name, refused in answers.items():
            typer.echo(f"{name}: {refused or f'will {word} {dataset} {version}'}")
    if any(answers.values()):
        raise typer.Exit(UNREACHABLE)
