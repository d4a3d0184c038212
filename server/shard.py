"""The life of one shard: put it together, listen; on SIGTERM the same backwards.

Rules:
- Clients are let in last, and sent away first. A start that fails takes back what it has started.
- A signal that comes while the storage is opened (which replays the write-ahead log) waits until it is open: then everything is closed in
  order.
- Almost all that the start made lives as long as the shard: the garbage collector is not to look through it again and again, while the loop
  stands.
- Nothing acknowledged is lost by an orderly stop; after a kill, the write-ahead log gives back what was written.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from contextlib import AsyncExitStack

import structlog

from server.assembly import assembled
from server.executor import Executor
from server.net.doorkeeper import door_table
from server.net.listener import Listener
from server.observe.metrics import MetricsServer
from server.settings import ShardSettings

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


async def serve(settings: ShardSettings) -> None:
    """Serve until a stop signal.

    Raises:
        RedkvError: the storage can't be opened, or an address can't be listened on.
    """
    log = structlog.get_logger("server.shard")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    with assembled(settings, now_ms, loop.call_soon) as services:
        services.stop = stop
        metrics = MetricsServer(services)
        listener = Listener(services, Executor(services.table, services), Executor(door_table(services.table), services))
        async with AsyncExitStack() as started:
            services.wal.start()
            started.push_async_callback(services.wal.stop)
            services.upkeep.start()
            started.push_async_callback(services.upkeep.stop)
            metrics.start()
            started.push_async_callback(asyncio.to_thread, metrics.stop)
            gc.collect()
            gc.freeze()
            await listener.open()
            started.push_async_callback(listener.close)
            services.latencies.watch(loop)
            started.callback(services.latencies.stop)
            datasets = sorted(services.engine.index.by_name)
            log.info("listening", host=settings.host, port=settings.port, epoch=services.cluster.epoch, datasets=datasets)
            await services.stop.wait()
            log.info("stopping")
    log.info("stopped")
