"""`redkv up` and `redkv down`: the local stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.stack.local import Stack

Folder = Annotated[Path, typer.Option("--dir", help="The folder that holds the whole stack.")]
DEFAULT_FOLDER = Path(".redkv")


def up(folder: Folder = DEFAULT_FOLDER) -> None:
    """Start a local stack: S3, Hive metastore, three nodes. Everything stays on loopback, under one folder.

    Example: redkv up, then redkv load examples/nycflights/plane.yaml --version 2026-11-22
    """
    stack = Stack(folder)
    started = stack.start(tell=typer.echo)
    if not started:
        typer.echo(f"the stack in {stack.folder} is up already")
    table = Table(title=f"stack in {stack.folder}", title_justify="left")
    for column in ("member", "address", "slots"):
        table.add_column(column)
    table.add_row("s3", stack.settings.store, "")
    table.add_row("metastore", stack.settings.metastore_uris, "")
    for node in stack.topology.nodes:
        table.add_row(f"{node.name}-sidecar", node.sidecar_url, "")
        for shard in node.shards:
            slots = ", ".join(f"{one.first}-{one.last}" for one in shard.slots)
            table.add_row(shard.name, f"{shard.host}:{shard.port}", slots)
    Console().print(table)
    typer.echo(f"try: redis-cli -c -p {stack.topology.shards[0].port} PING")
    if folder != DEFAULT_FOLDER:
        typer.echo(f"every other command needs: export REDKV_CONFIG={stack.settings_path}")


def down(
    folder: Folder = DEFAULT_FOLDER,
    *,
    purge: Annotated[bool, typer.Option(help="Remove the folder with all its data, too.")] = False,
) -> None:
    """Stop the local stack; its data stays for the next `redkv up`, unless --purge."""
    stack = Stack(folder)
    if not stack.exists:
        typer.echo(f"there is no stack in {stack.folder}")
        return
    stopped = stack.stop()
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing of the stack in {stack.folder} was running")
    if purge:
        stack.remove()
        typer.echo(f"removed {stack.folder}")
