"""CLUSTER, READONLY, READWRITE: what cluster clients ask to find their shards."""

from __future__ import annotations

from typing import Any

from pipeline.format.slots import SLOT_COUNT, key_slot
from pipeline.format.topology import Shard
from server.commands.registry import Family
from server.resp.replies import OK, Verbatim, encode, integer
from server.session import Session

FAMILY = Family("cluster", "")

FAMILY.container("cluster")

_VARIES = "nondeterministic_output"


@FAMILY.command("cluster|slots", 2, "stale", tips=_VARIES)
def slots(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Runs of slots and who serves them."""
    runs = [[first, last, [shard.host, shard.port, shard.node_id, {}]] for first, last, shard in session.services.cluster.runs()]
    return encode(runs, session.resp)


@FAMILY.command("cluster|shards", 2, "stale", tips=_VARIES)
def shards(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Every shard with its slots and processes."""
    return encode([_shard(session, one) for one in session.services.cluster.shards], session.resp)


def _shard(session: Session, shard: Shard) -> dict[str, Any]:
    runs = [(first, last) for first, last, owner in session.services.cluster.runs() if owner is shard]
    node = {
        "id": shard.node_id,
        "port": shard.port,
        "ip": shard.host,
        "endpoint": shard.host,
        "role": "master",
        "replication-offset": 0,
        "health": "online",
    }
    return {"slots": [border for run in runs for border in run], "nodes": [node]}


@FAMILY.command("cluster|nodes", 2, "stale", tips=_VARIES)
def nodes(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The shards as the lines of Redis' nodes.conf; there is no cluster bus, so its port is 0."""
    cluster = session.services.cluster
    lines = []
    for shard in cluster.shards:
        runs = [(first, last) for first, last, owner in cluster.runs() if owner is shard]
        ranges = "".join(f" {first}" if first == last else f" {first}-{last}" for first, last in runs)
        flags = "myself,master" if shard.name == cluster.name else "master"
        lines.append(f"{shard.node_id} {shard.host}:{shard.port}@0 {flags} - 0 0 {cluster.epoch} connected{ranges}\n")
    return encode(Verbatim("".join(lines)), session.resp)


@FAMILY.command("cluster|keyslot", 3, "stale")
def keyslot(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """The slot of a key."""
    return integer(key_slot(words[2]))


@FAMILY.command("cluster|myid", 2, "stale")
def myid(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The id of this shard."""
    settings = session.services.settings
    return encode(Shard(name=settings.name, host=settings.host, port=settings.port, slots=()).node_id, session.resp)


@FAMILY.command("cluster|info", 2, "stale", tips=_VARIES)
def info(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The state of the cluster as this shard sees it."""
    cluster = session.services.cluster
    assigned = SLOT_COUNT - cluster.topology.unowned() if cluster.topology else 0
    fields = {
        "cluster_state": "ok" if assigned == SLOT_COUNT else "fail",
        "cluster_slots_assigned": assigned,
        "cluster_slots_ok": assigned,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": len(cluster.shards),
        "cluster_size": sum(bool(shard.slots) for shard in cluster.shards),
        "cluster_current_epoch": cluster.epoch,
        "cluster_my_epoch": cluster.epoch,
        "cluster_stats_messages_sent": 0,
        "cluster_stats_messages_received": 0,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return encode(Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items())), session.resp)


@FAMILY.command("readonly", 1, "loading stale fast", categories="connection")
def readonly(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Accept reads from a replica; shards have none yet, so nothing changes."""
    return OK


@FAMILY.command("readwrite", 1, "loading stale fast", categories="connection")
def readwrite(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The opposite of READONLY."""
    return OK
