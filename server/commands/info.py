"""INFO: the shard in sections, for people and monitors. Names are Redis' where Redis has them, and only where they are true here.

`used_memory` is the memory of the process: Python's objects, which have an allocator of their own, and RocksDB's are in it.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Mapping

from server.allocator import allocator
from server.cluster.roles import replication_fields
from server.commands.connection import REDIS_VERSION
from server.commands.registry import Family
from server.observe import readings
from server.resp.replies import Verbatim, encode
from server.session import Session

FAMILY = Family("server", "dangerous")

PERCENTILES = (50, 99, 99.9)  # Redis' latency-tracking-info-percentiles

_ALL = frozenset({b"all", b"everything"})
_MS_PER_S = 1_000
_MS_PER_DAY = 86_400_000
_UNITS = (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))

Fields = Mapping[str, object]
Section = Callable[[Session], Fields]


@FAMILY.command("info", -1, "loading stale", tips="nondeterministic_output request_policy:all_shards response_policy:special")
def info(session: Session, words: list[bytes], _slot: int) -> bytes:
    """What this shard is and does, by section."""
    asked = {word.lower() for word in words[1:]}
    shown = [name for name in _SECTIONS if _is_asked(name, asked)]
    texts = []
    for name in shown:
        lines = "".join(f"{key}:{value}\r\n" for key, value in _SECTIONS[name](session).items())
        texts.append(f"# {name}\r\n{lines}")
    return encode(Verbatim("\r\n".join(texts)), session.resp)


def _is_asked(name: str, asked: set[bytes]) -> bool:
    if asked & _ALL or name.lower().encode() in asked:
        return True
    return (not asked or b"default" in asked) and name not in _ON_REQUEST


def _server(session: Session) -> Fields:
    services = session.services
    now_ms = services.engine.clock()
    up_ms = now_ms - services.started_ms
    return {
        "redis_version": REDIS_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_mode": "cluster" if services.cluster.enabled else "standalone",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "multiplexing_api": "libuv",
        "process_id": os.getpid(),
        "run_id": services.run_id,
        "tcp_port": services.settings.port,
        "server_time_usec": now_ms * 1_000,
        "uptime_in_seconds": up_ms // _MS_PER_S,
        "uptime_in_days": up_ms // _MS_PER_DAY,
        "executable": sys.executable,
        "shard_name": services.settings.name,
    }


def _clients(session: Session) -> Fields:
    services = session.services
    return {
        "connected_clients": len(services.sessions),
        "maxclients": services.config.maxclients,
        "blocked_clients": len(services.pause),
        "tracking_clients": 0,
    }


def _memory(session: Session) -> Fields:
    rss, peak = readings.resident_bytes(), readings.resident_peak_bytes()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    settings = session.services.settings
    return {
        "used_memory": rss,
        "used_memory_human": _human(rss),
        "used_memory_rss": rss,
        "used_memory_rss_human": _human(rss),
        "used_memory_peak": peak,
        "used_memory_peak_human": _human(peak),
        "total_system_memory": total,
        "total_system_memory_human": _human(total),
        "maxmemory": 0,
        "maxmemory_human": "0B",
        "maxmemory_policy": "noeviction",
        "mem_fragmentation_ratio": "1.00",
        "mem_allocator": allocator(),
        "hot_values": len(session.services.engine.cache),
        "hot_cache_bytes_max": settings.hot_cache_bytes,
        "block_cache_bytes_max": settings.block_cache_bytes,
    }


def _persistence(session: Session) -> Fields:
    services = session.services
    return {
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": services.started_ms // _MS_PER_S,
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": -1,
        "aof_enabled": 1,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok" if services.wal.failure is None else "err",
        "wal_syncs": services.wal.syncs,
        "aof_current_size": readings.rocksdb(services)["wal_bytes"],
    }


def _stats(session: Session) -> Fields:
    stats, upkeep, engine = session.services.stats, session.services.upkeep, session.services.engine
    return {
        "total_connections_received": stats.connections_total,
        "total_commands_processed": stats.commands_total,
        "instantaneous_ops_per_sec": round(stats.commands_per_s),
        "total_net_input_bytes": stats.input_bytes,
        "total_net_output_bytes": stats.output_bytes,
        "instantaneous_input_kbps": f"{stats.input_bytes_per_s / 1_024:.2f}",
        "instantaneous_output_kbps": f"{stats.output_bytes_per_s / 1_024:.2f}",
        "rejected_connections": stats.connections_refused,
        "keyspace_hits": engine.reads - engine.missing,
        "keyspace_misses": engine.missing,
        "evicted_keys": 0,
        "evicted_clients": 0,
        "pubsub_channels": 0,
        "pubsub_patterns": 0,
        "total_error_replies": sum(session.services.commands.errors.values()),
        "auth_failures": stats.auth_failures,
        "clients_cut_output": stats.clients_cut_output,
        "clients_closed_idle": stats.clients_closed_idle,
        "protocol_errors": stats.protocol_errors,
        "expired_keys": engine.expired_keys,
        "swept_collections": upkeep.sweep.collections,
        "sweep_backlog": upkeep.sweep.backlog,
    }


def _replication(session: Session) -> Fields:
    return replication_fields(session.services.cluster)


def _cpu(_session: Session) -> Fields:
    own = resource.getrusage(resource.RUSAGE_SELF)
    loop = resource.getrusage(resource.RUSAGE_THREAD)
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": "0.000000",
        "used_cpu_user_children": "0.000000",
        "used_cpu_sys_main_thread": f"{loop.ru_stime:.6f}",
        "used_cpu_user_main_thread": f"{loop.ru_utime:.6f}",
    }


def _modules(_session: Session) -> Fields:
    return {}


def _commandstats(session: Session) -> Fields:
    """Calls are counted; microseconds are their number times the mean of the samples."""
    commands = session.services.commands
    fields = {}
    for name, calls in commands.calls().items():
        timed = commands.timed.get(name)
        mean = timed.mean_us() if timed else 0.0
        fields[f"cmdstat_{name}"] = (
            f"calls={calls},usec={round(mean * calls)},usec_per_call={mean:.2f},"
            f"rejected_calls={commands.refused.get(name, 0)},failed_calls={commands.failed.get(name, 0)}"
        )
    return fields


def _errorstats(session: Session) -> Fields:
    return {f"errorstat_{prefix}": f"count={count}" for prefix, count in sorted(session.services.commands.errors.items())}


def _latencystats(session: Session) -> Fields:
    if not session.services.config.latency_tracking:
        return {}
    return {
        f"latency_percentiles_usec_{name}": ",".join(f"p{percent:g}={timed.percentile_us(percent):.3f}" for percent in PERCENTILES)
        for name, timed in session.services.commands.timed.items()
    }


def _cluster(session: Session) -> Fields:
    cluster = session.services.cluster
    return {"cluster_enabled": int(cluster.enabled), "cluster_topology_epoch": cluster.epoch}


def _keyspace(session: Session) -> Fields:
    """Live keys as RocksDB estimates them, because every client may ask at any time; those of versions were counted when they were made."""
    services = session.services
    keys = services.engine.live.database.keys_estimate() + sum(one.keys for one in readings.datasets(services))
    return {"db0": f"keys={keys},expires=0,avg_ttl=0"} if keys else {}


def _caches(session: Session) -> Fields:
    return readings.caches(session.services)


def _rocksdb(session: Session) -> Fields:
    return readings.rocksdb(session.services)


def _bulk(session: Session) -> Fields:
    return {
        f"dataset_{one.name}": f"prefix={one.prefix},active={one.active},build={one.build_id},keys={one.keys},"
        f"opened={one.opened},pins={one.pins},refused={int(one.refused)},"
        f"expected={one.expected},lagging={int(one.lagging)}"
        for one in readings.datasets(session.services)
    }


def _stalls(session: Session) -> Fields:
    """How late the event loop turned since the start or CONFIG RESETSTAT."""
    latencies = session.services.latencies
    return {"loop_longest_stall_usec": latencies.longest_ns // 1_000, "loop_slow_turns": latencies.slow_turns}


def _human(size: int) -> str:
    for unit, unit_bytes in _UNITS:
        if size >= unit_bytes:
            return f"{size / unit_bytes:.2f}{unit}"
    return f"{size}B"


_ON_REQUEST = frozenset({"Commandstats", "Latencystats"})  # as in Redis, all others are shown by default

_SECTIONS: dict[str, Section] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "CPU": _cpu,
    "Modules": _modules,
    "Commandstats": _commandstats,
    "Errorstats": _errorstats,
    "Latencystats": _latencystats,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
    "Caches": _caches,
    "Rocksdb": _rocksdb,
    "Bulk": _bulk,
    "Stalls": _stalls,
}
