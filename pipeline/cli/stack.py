"""`redkv up` and `redkv down`: the local stack.

The stack's own modules are imported when one of the two runs: they need packages of the extra `stack`, which a storage node does not have.
"""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.output import Format, OutputOption, print_json
from pipeline.format.errors import UsageError

if TYPE_CHECKING:
    from pipeline.stack.local import Stack

Folder = Annotated[Path, typer.Option("--dir", help="The folder that holds the whole stack.")]
DEFAULT_FOLDER = Path(".redkv")


def up(folder: Folder = DEFAULT_FOLDER, output: OutputOption = Format.TEXT) -> None:
    """Start a local stack: S3, Hive metastore, three nodes. Everything stays on loopback, under one folder.

    Example: redkv up, then redkv load examples/nycflights/plane.yaml --version 2026-11-22
    """
    stack = _stack(folder)
    started = stack.start(tell=partial(typer.echo, err=output is Format.JSON))
    if output is Format.JSON:
        print_json({"folder": str(stack.folder), "settings": str(stack.settings_path), "started": started, **_members_json(stack)})
        return
    if not started:
        typer.echo(f"the stack in {stack.folder} is up already")
    Console().print(_members(stack))
    shard = stack.topology.shards[0]
    typer.echo(f"try: redis-cli -c -p {shard.port} CLUSTER INFO")
    typer.echo(f"logs: {stack.folder / 'logs'}")
    if folder != DEFAULT_FOLDER:
        typer.echo(f"for other commands: export REDKV_CONFIG={shlex.quote(str(stack.settings_path))}")


def down(
    folder: Folder = DEFAULT_FOLDER,
    *,
    purge: Annotated[bool, typer.Option(help="Remove the stack's data, too.")] = False,
    output: OutputOption = Format.TEXT,
) -> None:
    """Stop the local stack; its data stays for the next `redkv up`, unless --purge.

    Example: redkv down --purge
    """
    stack = _stack(folder)
    if not stack.exists:
        if output is Format.JSON:
            print_json({"folder": str(stack.folder), "stopped": [], "purged": False})
        else:
            typer.echo(f"there is no stack in {stack.folder}")
        return
    stopped = stack.stop()
    if output is Format.JSON:
        if purge:
            stack.remove()
        print_json({"folder": str(stack.folder), "stopped": list(stopped), "purged": purge})
        return
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing of the stack in {stack.folder} was running")
    if purge:
        stack.remove()
        typer.echo(f"removed the data of the stack in {stack.folder}")


def _stack(folder: Path) -> Stack:
    try:
        from pipeline.stack.local import Stack  # noqa: PLC0415 -- see the head of this module
    except ModuleNotFoundError as missing:
        message = f"the local stack needs {missing.name}: pip install 'redkv[server,sidecar,spark,stack]'"
        raise UsageError(message, missing=missing.name) from missing
    return Stack(folder)


def _members_json(stack: Stack) -> dict[str, object]:
    shards = [{"name": one.name, "host": one.host, "port": one.port} for one in stack.topology.shards]
    sidecars = {node.name: node.sidecar_url for node in stack.topology.nodes}
    return {"s3": stack.s3_endpoint, "metastore": stack.metastore.uri, "sidecars": sidecars, "shards": shards}


def _members(stack: Stack) -> Table:
    table = Table(title=f"stack in {stack.folder}", title_justify="left")
    for column in ("member", "address", "slots"):
        table.add_column(column, overflow="fold")
    table.add_row("s3", stack.s3_endpoint, "")
    table.add_row("metastore", stack.metastore.uri, "")
    for node in stack.topology.nodes:
        table.add_row(f"{node.name}-sidecar", node.sidecar_url, "")
        for shard in node.shards:
            slots = ", ".join(f"{one.first}-{one.last}" for one in shard.slots)
            table.add_row(shard.name, f"{shard.host}:{shard.port}", slots)
    return table
