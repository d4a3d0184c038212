"""`redkv cluster`: the topology document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from pipeline.cli.output import Format, OutputOption, print_json
from pipeline.format.errors import FormatError, ObjectMissingError, StaleEpochError, UsageError
from pipeline.format.layout import topology_key
from pipeline.format.topology import Topology
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.settings import ClusterSettings, load_settings
from pipeline.store import ObjectStore

app = typer.Typer(help="The cluster's topology: which shard owns which slots.", no_args_is_help=True)


@app.command()
def show(context: typer.Context) -> None:
    """Print the topology as JSON, as `apply` takes it.

    Example: redkv cluster show > topology.json
    """
    settings = load_settings(context.obj)
    typer.echo(_documents(settings).topology().to_json(), nl=False)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The topology as JSON, with an epoch above the current one.")],
    output: OutputOption = Format.TEXT,
) -> None:
    """Write a new topology; shards and sidecars follow it by themselves.

    Example: redkv cluster apply topology.json
    """
    settings = load_settings(context.obj)
    try:
        wanted = Topology.from_json(file.read_bytes(), str(file))
    except FormatError as wrong:
        raise UsageError(f"{wrong.message}: `redkv cluster show` prints one to start from", file=str(file)) from wrong
    except OSError as unreadable:
        raise UsageError(f"{file} can't be read: {unreadable}", file=str(file)) from unreadable
    if wanted.cluster != settings.cluster:
        raise UsageError(f"{file} is of cluster {wanted.cluster!r}, the settings name {settings.cluster!r}", file=str(file))
    _check_addresses(wanted, file)
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
    with Nodes(wanted, settings.sidecar_token) as nodes:
        nodes.wake()
    if output is Format.JSON:
        counts = {"nodes": len(wanted.nodes), "shards": len(wanted.shards), "unowned_slots": wanted.unowned()}
        print_json({"cluster": wanted.cluster, "epoch": wanted.epoch, **counts})
        return
    typer.echo(f"topology of {wanted.cluster} is at epoch {wanted.epoch}: {len(wanted.shards)} shards on {len(wanted.nodes)} nodes")
    if wanted.unowned():
        typer.echo(f"{wanted.unowned()} slots have no owner: clients get CLUSTERDOWN for them, and nothing can be loaded", err=True)


def _check_addresses(topology: Topology, file: Path) -> None:
    for node in topology.nodes:
        try:
            address = urlsplit(node.sidecar_url)
            well = address.scheme == "http" and bool(address.hostname) and address.port is not None
        except ValueError:
            well = False
        if not well:
            message = f"{file}: node {node.name} has sidecar_url {node.sidecar_url!r}: write http://host:port"
            raise UsageError(message, file=str(file), node=node.name)


def _documents(settings: ClusterSettings) -> ClusterDocuments:
    return ClusterDocuments(ObjectStore(settings.store), settings.cluster)
