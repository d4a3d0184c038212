"""`python -m ingest_sidecar --config FILE.toml`: run one sidecar until SIGTERM.

Its end waits for nobody: a thread that stands in a read from the store, or in a look at it, is left to the end of the process. Whatever it
was doing goes on from the last byte next time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn

from ingest_sidecar.api import application
from ingest_sidecar.priority import lower_priority
from ingest_sidecar.reconcile import Reconciler
from ingest_sidecar.settings import SidecarSettings
from pipeline.format.errors import RedkvError
from pipeline.store import ObjectStore

STOP_WAIT_S = 5  # for HTTP answers under way, and for work to end in order


class _HttpServer(uvicorn.Server):
    """uvicorn raises the signal that ended it once more, which would kill this process before its own work has ended."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `serve`'s."""
        yield


def main() -> int:
    """Run one sidecar; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ingest_sidecar", description="Run one ingest sidecar.")
    parser.add_argument("--config", type=Path, required=True, help="TOML file of ingest_sidecar.settings.SidecarSettings")
    try:
        settings = SidecarSettings.from_file(parser.parse_args().config)
        lower_priority(settings.nice)
        _configure_logs(settings.node)
        asyncio.run(_serve_and_leave(settings))
    except RedkvError as failed:
        sys.stderr.write(f"{failed.message}\n")
        return failed.exit_code
    return 0


async def _serve_and_leave(settings: SidecarSettings) -> None:
    await serve(settings)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)  # without this, Python would wait for threads that a silent store holds


async def serve(settings: SidecarSettings) -> None:
    """Answer HTTP and reconcile until SIGTERM or SIGINT; a reconcile loop that ends ends the process."""
    reconciler = Reconciler(settings, ObjectStore(settings.store, silence_s_max=settings.silence_s_max))
    config = uvicorn.Config(
        application(reconciler, settings.token.get_secret_value() if settings.token else None),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_WAIT_S,
    )
    server = _HttpServer(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    loop = asyncio.create_task(reconciler.run(), name="reconcile")
    http = asyncio.create_task(server.serve(), name="http")
    await asyncio.wait({loop, http}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    loop.cancel()
    ended, _ = await asyncio.wait({loop, http}, timeout=STOP_WAIT_S)
    for one in ended:
        if not one.cancelled() and (failed := one.exception()) is not None:
            raise failed


def _configure_logs(node: str) -> None:
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)  # uvicorn's and boto3's words, in the same form
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=steps, processor=renderer))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[*steps, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=node)


if __name__ == "__main__":
    sys.exit(main())
