"""`redkv node`: run the shards and the sidecar of this machine. It knows no cluster: its settings are a file of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer

from pipeline.format.errors import NodeError
from pipeline.node.settings import NodeSettings
from pipeline.node.supervisor import Supervisor


def node(config: Annotated[Path, typer.Option("--config", help="TOML file: name, status_file, log_dir, shards, sidecar.")]) -> None:
    """Start this machine's shards and sidecar, and start again what ends, until SIGTERM or Ctrl-C stops all in order.

    Example: redkv node --config node.toml
    """
    settings = NodeSettings.from_file(config)
    _configure_logs(settings.name)
    if not asyncio.run(_run(settings)):
        raise NodeError(f"node {settings.name} has stopped, but a process did not end when asked and was killed: see the log")


async def _run(settings: NodeSettings) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await Supervisor(settings).run(stop)


def _configure_logs(name: str) -> None:
    """One JSON object per line on standard error, as shards and sidecars write."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=name)
