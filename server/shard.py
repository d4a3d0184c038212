"""The life of one shard: open the storage, follow the topology, listen; on SIGTERM the same backwards.

Rules:
- The live database is opened first: its lock is what keeps a second process away.
- Clients are let in last, when all registered datasets are served again.
- Nothing acknowledged is lost by an orderly stop; after a kill, the write-ahead log gives back what was written.
"""

from __future__ import annotations

import asyncio
import signal
import time
from uuid import uuid4

import structlog

from pipeline.format.errors import RedkvError
from pipeline.format.layout import ShardPaths
from server.cluster.topology import ClusterView
from server.commands.table import command_table
from server.executor import Executor
from server.net.listener import Listener
from server.session import Services
from server.settings import ShardSettings
from server.storage.datasets import DatasetIndex
from server.storage.engine import Engine
from server.storage.rocks import Database, new_cache
from server.storage.versions import Versions

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
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    paths = ShardPaths(settings.data_dir)
    cache = new_cache(settings.block_cache_bytes)
    live = Database.open_live(paths.live, cache, settings.write_buffer_bytes)
    index = DatasetIndex()
    versions = Versions(live, index, paths, cache, now_ms, loop.call_soon)
    try:
        versions.restore()
        cluster = _cluster(settings, paths, log)
        versions.follow(cluster.owned_slots)
        services = Services(settings, uuid4().hex, now_ms(), Engine(live, index, now_ms), versions, cluster)
        listener = Listener(services, Executor(command_table(), cluster, index))
        await listener.open()
        services.latencies.watch(loop)
        log.info("listening", host=settings.host, port=settings.port, epoch=cluster.epoch, datasets=sorted(index.by_name))
        await stop.wait()
        log.info("stopping")
        services.latencies.stop()
        await listener.close()
    finally:
        versions.close_all()
        live.close()
    log.info("stopped")


def _cluster(settings: ShardSettings, paths: ShardPaths, log: structlog.typing.FilteringBoundLogger) -> ClusterView:
    cluster = ClusterView(settings.name, paths.topology)
    if not paths.topology.exists():
        log.warning("no topology yet: every keyed command answers CLUSTERDOWN", path=str(paths.topology))
        return cluster
    try:
        cluster.reload()
    except RedkvError as failed:
        log.warning("topology can't be followed", error=failed.message)
    return cluster
