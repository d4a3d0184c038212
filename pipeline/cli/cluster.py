"""`redkv cluster`: the topology document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.format.errors import ObjectMissingError, StaleEpochError, UsageError
from pipeline.format.layout import topology_key
from pipeline.format.topology import Topology
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.settings import ClusterSettings, load_settings
from pipeline.store import ObjectStore

app = typer.Typer(help="The cluster's topology: which shard owns which slots.", no_args_is_help=True)


@app.command()
def show(context: typer.Context) -> None:
    """Print the topology as JSON, as `apply` takes it."""
    settings = load_settings(context.obj)
    typer.echo(_documents(settings).topology().to_json(), nl=False)


@app.command()
def apply(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="The topology as JSON, with an epoch above the current one.")]
) -> None:
    """Write a new topology; shards and sidecars follow it by themselves."""
    settings = load_settings(context.obj)
    try:
        wanted = Topology.from_json(file.read_bytes(), str(file))
    except OSError as unreadable:
        raise UsageError(f"{file} can't be read: {unreadable}", file=str(file)) from unreadable
    if wanted.cluster != settings.cluster:
        raise UsageError(f"{file} is of cluster {wanted.cluster!r}, the settings name {settings.cluster!r}", file=str(file))
    store, key = ObjectStore(settings.store), topology_key(settings.cluster)
    try:
        current = store.get(key)
    except ObjectMissingError:
        store.create(key, wanted.to_json())
    else:
        epoch = Topology.from_json(current.data, key).epoch
        if wanted.epoch <= epoch:
            raise StaleEpochError(f"the topology in the store has epoch {epoch}: give {file} a higher one than {wanted.epoch}", epoch=epoch)
        store.replace(key, wanted.to_json(), current.etag)
    with Nodes(wanted) as nodes:
        nodes.wake()
    typer.echo(f"topology of {wanted.cluster} is at epoch {wanted.epoch}: {len(wanted.shards)} shards on {len(wanted.nodes)} nodes")


def _documents(settings: ClusterSettings) -> ClusterDocuments:
    return ClusterDocuments(ObjectStore(settings.store), settings.cluster)
