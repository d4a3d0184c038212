"""`redkv verify`: whether every copy of a version is what was built."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.output import Format, OutputOption, print_json
from pipeline.cli.swapping import DatasetArgument
from pipeline.load.checking import CheckReport, check_version
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.settings import load_settings
from pipeline.spec import check_version as checked_id
from pipeline.store import ObjectStore

DIFFERS = 1


def verify(
    context: typer.Context,
    dataset: DatasetArgument,
    version: Annotated[str | None, typer.Argument(help="The version id; by default the active one.")] = None,
    output: OutputOption = Format.TEXT,
) -> None:
    """Compare what every shard holds of a version with its manifest, and read its samples through every shard. Exit code 1 if any differs.

    Example: redkv verify person 2026-11-22
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster)
    with Nodes(documents.topology(), settings.sidecar_token) as nodes:
        report = check_version(documents, nodes, dataset, checked_id(version) if version else None)
    if output is Format.JSON:
        print_json(as_json(report))
    else:
        typer.echo(sentence(report))
        for problem in report.problems:
            typer.echo(problem, err=True)
    if report.problems:
        raise typer.Exit(DIFFERS)


def as_json(report: CheckReport) -> dict[str, object]:
    """The document of `--output json`: see docs/cli.md."""
    nodes = {name: [one.model_dump(mode="json") for one in shards] for name, shards in report.nodes.items()}
    return {**asdict(report), "nodes": nodes, "problems": list(report.problems)}


def sentence(report: CheckReport) -> str:
    """A verification for people."""
    what = f"{report.dataset} {report.version} (build {report.build_id})"
    found = f"{report.keys:,} keys, {report.entries:,} entries, {report.samples_checked:,} samples read through the shards"
    return f"{what}: {f'{len(report.problems)} differences' if report.problems else 'as it was built'}; {found}"
