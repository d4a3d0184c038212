"""INFO: the shard in sections, for people and monitors."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Mapping

from server.commands.connection import REDIS_VERSION
from server.commands.registry import Family
from server.resp.replies import Verbatim, encode
from server.session import Session

FAMILY = Family("server", "dangerous")

_ALL = frozenset({b"all", b"default", b"everything"})
_MS_PER_DAY = 86_400_000

Section = Callable[[Session], Mapping[str, object]]


@FAMILY.command("info", -1, "loading stale", tips="nondeterministic_output request_policy:all_shards response_policy:special")
def info(session: Session, words: list[bytes], _slot: int) -> bytes:
    """What this shard is and does, by section."""
    asked = {word.lower() for word in words[1:]}
    shown = [name for name in _SECTIONS if not asked or asked & _ALL or name.lower().encode() in asked]
    texts = []
    for name in shown:
        lines = "".join(f"{key}:{value}\r\n" for key, value in _SECTIONS[name](session).items())
        texts.append(f"# {name}\r\n{lines}")
    return encode(Verbatim("\r\n".join(texts)), session.resp)


def _server(session: Session) -> dict[str, object]:
    services = session.services
    up_ms = services.engine.clock() - services.started_ms
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "cluster",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "process_id": os.getpid(),
        "run_id": services.run_id,
        "tcp_port": services.settings.port,
        "uptime_in_seconds": up_ms // 1_000,
        "uptime_in_days": up_ms // _MS_PER_DAY,
        "shard_name": services.settings.name,
    }


def _clients(session: Session) -> dict[str, object]:
    services = session.services
    return {"connected_clients": len(services.sessions), "maxclients": services.settings.clients_max, "blocked_clients": 0}


def _memory(_session: Session) -> dict[str, object]:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"used_memory_peak_rss": peak_kib << 10}


def _persistence(_session: Session) -> dict[str, object]:
    return {"loading": 0}


def _stats(session: Session) -> dict[str, object]:
    stats = session.services.stats
    return {
        "total_connections_received": stats.connections_total,
        "total_commands_processed": stats.commands_total,
        "rejected_connections": stats.connections_refused,
    }


def _replication(_session: Session) -> dict[str, object]:
    return {"role": "master", "connected_slaves": 0}


def _cluster(session: Session) -> dict[str, object]:
    return {"cluster_enabled": 1, "cluster_topology_epoch": session.services.cluster.epoch}


def _keyspace(session: Session) -> dict[str, object]:
    keys = session.services.engine.live.keys_estimate()
    return {"db0": f"keys={keys},expires=0,avg_ttl=0"} if keys else {}


def _bulk(session: Session) -> dict[str, object]:
    status = session.services.versions.status()
    return {
        f"dataset_{name}": f"prefix={one.prefix},active={one.active or ''},build={one.active_build_id or ''},opened={len(one.opened)}"
        for name, one in sorted(status.items())
    }


_SECTIONS: dict[str, Section] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
    "Bulk": _bulk,
}
