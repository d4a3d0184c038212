"""What a shard is made of, put together and taken apart again; without sockets and without a loop of its own.

Rules:
- The live database is opened first: its lock is what keeps a second process away.
- All registered datasets are served again before anybody gets to see the shard.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import structlog

from pipeline.format.errors import RedkvError
from pipeline.format.layout import ShardPaths
from pipeline.format.topology import Shard
from server.cluster.topology import ClusterView
from server.commands.table import all_commands, command_table, find
from server.config import RuntimeConfig
from server.net.pause import Pause
from server.net.turn import Turn
from server.observe.commands import CommandStats
from server.observe.slowlog import SlowLog
from server.observe.sparing import SparingLog
from server.session import Services
from server.settings import ShardSettings
from server.storage.cursors import PROCESS_BITS, Cursors
from server.storage.datasets import DatasetIndex
from server.storage.engine import Engine
from server.storage.gate import Gate
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.lookup import Clock
from server.storage.rocks import BlockCache, Database
from server.storage.upserts import Upserts
from server.storage.versions import Defer, Versions
from server.storage.walsync import WalSync
from server.upkeep import Upkeep
from server.watching import Watching


@contextmanager
def assembled(settings: ShardSettings, clock: Clock, defer: Defer) -> Iterator[Services]:
    """All services of one shard; its databases are closed at the end. `defer` runs a function on the next turn of the event loop.

    Raises:
        RedkvError: the storage can't be opened.
    """
    paths = ShardPaths(settings.data_dir)
    cache = BlockCache(settings.block_cache_bytes)
    live = Database.open_live(paths.live, cache, settings.write_buffer_bytes)
    index = DatasetIndex()
    hot = HotCache(settings.hot_cache_bytes)
    engine = Engine(LiveStore(live), index, clock, hot)
    versions = Versions(live, index, paths, cache, hot, clock, defer)
    try:
        versions.restore()
        cluster = _cluster(settings, paths)
        versions.follow(cluster.held_slots)
        yield _services(settings, engine, versions, cluster, clock, defer)
    finally:
        versions.close_all()
        live.close()


def _services(settings: ShardSettings, engine: Engine, versions: Versions, cluster: ClusterView, clock: Clock, defer: Defer) -> Services:
    table = command_table()
    config = RuntimeConfig.of(settings)
    gate = Gate()
    wal = WalSync(engine.live, lambda: config.appendfsync)

    def name_of(words: list[bytes]) -> str | None:
        found = find(table, words)
        return found.name if found else None

    def may_write(words: list[bytes]) -> bool:
        found = find(table, words)
        return found is not None and (found.writes or found.name == "exec")

    return Services(
        settings=settings,
        table=table,
        run_id=uuid4().hex,
        started_ms=clock(),
        engine=engine,
        versions=versions,
        cluster=cluster,
        wal=wal,
        watching=Watching(engine),
        turn=Turn(engine.live, defer),
        upserts=Upserts(engine, gate, ShardPaths(settings.data_dir).scratch, lambda: cluster.held_slots),
        config=config,
        cursors=Cursors(secrets.randbits(PROCESS_BITS)),
        commands=CommandStats(all_commands(table), name_of),
        slowlog=SlowLog(config),
        pause=Pause(may_write),
        warnings=SparingLog(clock),
        gate=gate,
        upkeep=Upkeep(engine, gate, wal),
    )


def _cluster(settings: ShardSettings, paths: ShardPaths) -> ClusterView:
    log = structlog.get_logger("server.assembly")
    myself = Shard(name=settings.name, host=settings.host, port=settings.port, slots=())
    cluster = ClusterView(myself, paths.topology, enabled=settings.cluster_enabled)
    if not paths.topology.exists():
        if cluster.enabled:
            log.warning("no topology yet: every keyed command answers CLUSTERDOWN", path=str(paths.topology))
        return cluster
    try:
        cluster.reload()
    except RedkvError as failed:
        log.warning("topology can't be followed", error=failed.message)
    return cluster
