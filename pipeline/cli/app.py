"""The root of the command line: which commands there are, and how failures leave it.

Exit codes: 0 done; 1 failed; 2 the spec, the settings or the arguments must be mended; 130 interrupted, by SIGINT or SIGTERM. What an
interruption leaves is said by the command that it met.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from pipeline.cli import cluster, control, garbage, inspecting, keys, loading, node, stack, status, swapping, verifying, versions
from pipeline.format.errors import RedkvError

app = typer.Typer(
    name="redkv",
    help="Bring Hive tables to Redis clients: built as RocksDB files, ingested beside the serving process, swapped in at once.",
    epilog="Exit codes: 0 done, 1 failed, 2 mend the spec, the settings or the arguments, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file; by default $REDKV_CONFIG, ./redkv.toml, ./.redkv/redkv.toml.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="Who acts, for the audit trail [default: user@host].", show_default=False)
    ] = None,
) -> None:
    """Keep what all commands share."""
    context.obj = config
    if name is not None:
        os.environ["REDKV_AUTHOR"] = name  # settings stand over their file this way


app.command()(loading.load)
app.command()(status.status)
app.command()(versions.versions)
app.command()(verifying.verify)
app.command()(swapping.rollback)
app.command()(swapping.activate)
app.command()(swapping.mark_bad)
for command in (control.pause, control.resume, control.retry, control.cancel):
    app.command()(command)
app.command()(keys.key)
app.command()(garbage.gc)
app.command()(node.node)
app.command()(stack.up)
app.command()(stack.down)
app.add_typer(cluster.app, name="cluster")
app.add_typer(inspecting.app, name="inspect")


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except RedkvError as failure:
        Console(stderr=True).print(Text.assemble(("error", "bold red"), f": {type(failure).__name__}:"), end=" ")
        sys.stderr.write(f"{failure.message}\n")  # unwrapped, so that paths and keys can be copied
        if failure.exit_code == 1:
            sys.stderr.write(f"who must act: {failure.acts}\n")
        sys.exit(failure.exit_code)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
