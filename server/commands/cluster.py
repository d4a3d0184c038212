"""CLUSTER, READONLY, READWRITE: what cluster clients ask to find their shards, and how they read from replicas.

Rules:
- What is told comes from the topology that this shard follows. Nobody asks other shards, so all of them are online and connected.
- What would change a cluster is refused: the topology is one document, and `redkv cluster` changes it.
- A shard outside of cluster mode refuses all of CLUSTER, in Redis' words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from pipeline.format.slots import SLOT_COUNT, key_slot
from pipeline.format.topology import Shard
from server.cluster.slotkeys import keys_of
from server.cluster.topology import ClusterView
from server.commands.arguments import integer as to_integer
from server.commands.registry import NO_KEYS, Family, Handler
from server.resp import texts
from server.resp.replies import OK, ReplyError, Simple, Verbatim, encode, integer
from server.session import Session

FAMILY = Family("cluster", "")

FAMILY.container("cluster")

_VARIES = "nondeterministic_output"
_CHANGES = (
    ("addslots", -3),
    ("addslotsrange", -4),
    ("bumpepoch", 2),
    ("delslots", -3),
    ("delslotsrange", -4),
    ("failover", -2),
    ("flushslots", 2),
    ("forget", 3),
    ("meet", -4),
    ("replicate", 3),
    ("reset", -2),
    ("saveconfig", 2),
    ("set-config-epoch", 3),
    ("setslot", -4),
)
"""Redis' subcommands that change a cluster, with their arity."""

_HELP = """\
CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:
COUNT-FAILURE-REPORTS <node-id>
    Return number of failure reports for <node-id>.
COUNTKEYSINSLOT <slot>
    Return the number of keys in <slot>.
GETKEYSINSLOT <slot> <count>
    Return key names stored by current node in a slot.
INFO
    Return information about the cluster.
KEYSLOT <key>
    Return the hash slot for <key>.
MYID
    Return the node id.
NODES
    Return cluster configuration seen by node. Output format:
    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...
REPLICAS <node-id>
    Return <node-id> replicas.
SLOTS
    Return information about slots range mappings. Each range is made of:
    start, end, master and replicas IP addresses, ports and ids
SHARDS
    Return information about slot range mappings and the nodes associated with them.
LINKS
    Return information about all network links between this node and its peers.
    Output format is an array where each array element is a map containing attributes of a link
HELP
    Prints this help."""


def _command(name: str, arity: int, flags: str = "stale", *, categories: str = "", tips: str = "") -> Callable[[Handler], Handler]:
    """Declare a command that only a shard in cluster mode has."""

    def declare(run: Handler) -> Handler:
        def run_in_cluster(session: Session, words: list[bytes], slot: int) -> Any:
            if not session.services.cluster.enabled:
                raise ReplyError(texts.CLUSTER_DISABLED)
            return run(session, words, slot)

        run_in_cluster.__doc__ = run.__doc__
        FAMILY.add(name, run_in_cluster, arity, flags, NO_KEYS, categories=categories, tips=tips)
        return run

    return declare


@_command("cluster|slots", 2, tips=_VARIES)
def slots(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Runs of slots, who serves them, and who replicates them."""
    cluster = session.services.cluster
    replies = []
    for first, last, owner in cluster.runs():
        members = (owner, *cluster.replicas_of(owner))
        replies.append([first, last, *([one.host, one.port, one.node_id, {}] for one in members)])
    return encode(replies, session.resp)


@_command("cluster|shards", 2, tips=_VARIES)
def shards(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Every shard with its slots and processes."""
    cluster = session.services.cluster
    runs = cluster.runs()
    replies = []
    for shard in cluster.shards:
        if shard.replica_of is None:
            borders = [border for first, last, owner in runs if owner is shard for border in (first, last)]
            members = (shard, *cluster.replicas_of(shard))
            replies.append({"slots": borders, "nodes": [_member(one) for one in members]})
    return encode(replies, session.resp)


def _member(shard: Shard) -> dict[str, Any]:
    return {
        "id": shard.node_id,
        "port": shard.port,
        "ip": shard.host,
        "endpoint": shard.host,
        "role": "master" if shard.replica_of is None else "replica",
        "replication-offset": 0,
        "health": "online",
    }


@_command("cluster|nodes", 2, tips=_VARIES)
def nodes(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The shards as the lines of Redis' nodes.conf; there is no cluster bus, so its port is 0."""
    return encode(Verbatim("".join(f"{line}\n" for line in _lines(session, session.services.cluster.shards))), session.resp)


@_command("cluster|replicas", 3, "admin stale", tips=_VARIES)
def replicas(session: Session, words: list[bytes], _slot: int) -> bytes:
    """The replicas of a shard, as lines of CLUSTER NODES."""
    shard = _find(session, words[2])
    if shard.replica_of is not None:
        raise ReplyError(texts.NOT_A_MASTER)
    return encode(_lines(session, session.services.cluster.replicas_of(shard)), session.resp)


_command("cluster|slaves", 3, "admin stale", tips=_VARIES)(replicas)


def _find(session: Session, word: bytes) -> Shard:
    for shard in session.services.cluster.shards:
        if shard.node_id.encode() == word:
            return shard
    raise ReplyError(texts.unknown_node(word))


def _lines(session: Session, asked: Iterable[Shard]) -> list[str]:
    cluster = session.services.cluster
    runs = cluster.runs()
    return [_line(cluster, shard, [(first, last) for first, last, owner in runs if owner is shard]) for shard in asked]


def _line(cluster: ClusterView, shard: Shard, runs: list[tuple[int, int]]) -> str:
    flags = "master" if shard.replica_of is None else "slave"
    if shard is cluster.myself:
        flags = f"myself,{flags}"
    primary = cluster.primary_of(shard)
    ranges = "".join(f" {first}" if first == last else f" {first}-{last}" for first, last in runs)
    of = primary.node_id if primary is not None else "-"
    return f"{shard.node_id} {shard.host}:{shard.port}@0 {flags} {of} 0 0 {cluster.epoch} connected{ranges}"


@_command("cluster|keyslot", 3)
def keyslot(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """The slot of a key."""
    return integer(key_slot(words[2]))


@_command("cluster|countkeysinslot", 3)
async def countkeysinslot(session: Session, words: list[bytes], _slot: int) -> bytes:
    """How many keys this shard holds of a slot, counted one by one."""
    slot = to_integer(words[2])
    if not 0 <= slot < SLOT_COUNT:
        raise ReplyError(texts.INVALID_SLOT)
    services, count = session.services, 0
    async with aclosing(keys_of(services.engine, services.versions, slot)) as keys:
        async for _ in keys:
            count += 1
    return integer(count)


@_command("cluster|getkeysinslot", 4, tips=_VARIES)
async def getkeysinslot(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Some keys that this shard holds of a slot."""
    slot, wanted = to_integer(words[2]), to_integer(words[3])
    if not 0 <= slot < SLOT_COUNT or wanted < 0:
        raise ReplyError(texts.INVALID_SLOT_OR_COUNT)
    services = session.services
    found: list[bytes] = []
    async with aclosing(keys_of(services.engine, services.versions, slot)) as keys:
        while len(found) < wanted and (key := await anext(keys, None)) is not None:
            found.append(key)
    return encode(found, session.resp)


@_command("cluster|count-failure-reports", 3, "admin stale", tips=_VARIES)
def count_failure_reports(session: Session, words: list[bytes], _slot: int) -> bytes:
    """How many shards think that another one failed: none, as they do not watch each other."""
    _find(session, words[2])
    return integer(0)


@_command("cluster|links", 2, tips=_VARIES)
def links(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The links of the cluster bus: there is none."""
    return encode([], session.resp)


@_command("cluster|myid", 2)
def myid(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The id of this shard."""
    return encode(session.services.cluster.myself.node_id, session.resp)


@_command("cluster|info", 2, tips=_VARIES)
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


@_command("cluster|help", 2, "loading stale")
def help_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What CLUSTER can do here."""
    return encode([Simple(line) for line in _HELP.splitlines()], session.resp)


def _refused(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """Not supported: `redkv cluster` changes the topology."""
    raise ReplyError(texts.topology_only(words[1]))


for _name, _arity in _CHANGES:
    _flags = "admin noscript stale" if _name == "reset" else "admin stale no_async_loading"
    _command(f"cluster|{_name}", _arity, _flags, tips=_VARIES if _name == "bumpepoch" else "")(_refused)


@_command("readonly", 1, "loading stale fast", categories="connection")
def readonly(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Accept reads from a replica."""
    session.readonly = True
    return OK


@_command("readwrite", 1, "loading stale fast", categories="connection")
def readwrite(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The opposite of READONLY."""
    session.readonly = False
    return OK
