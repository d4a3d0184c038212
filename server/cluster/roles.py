"""What a shard says of its part in replication: ROLE, HELLO and INFO's section, in Redis' terms.

There is no stream of writes between shards: a replica holds what its own sidecar loads. So every offset is 0, and a replica's link to its
primary, which has nothing to carry, is never down.
"""

from __future__ import annotations

from typing import Any

from server.cluster.topology import ClusterView

_NO_REPLICATION_ID = "0" * 40


def hello_role(cluster: ClusterView) -> str:
    """The role in HELLO's reply."""
    return "replica" if cluster.primary is not None else "master"


def role(cluster: ClusterView) -> list[Any]:
    """ROLE's reply."""
    if cluster.primary is not None:
        return ["slave", cluster.primary.host, cluster.primary.port, "connected", 0]
    return ["master", 0, [[one.host, str(one.port), "0"] for one in cluster.replicas]]


def replication_fields(cluster: ClusterView) -> dict[str, object]:
    """INFO's section Replication."""
    primary = cluster.primary
    fields: dict[str, object] = {"role": "master" if primary is None else "slave"}
    if primary is not None:
        fields |= {
            "master_host": primary.host,
            "master_port": primary.port,
            "master_link_status": "up",
            "master_last_io_seconds_ago": 0,
            "master_sync_in_progress": 0,
            "slave_read_repl_offset": 0,
            "slave_repl_offset": 0,
            "slave_priority": 0,  # never to be promoted by whoever reads this: the topology is what changes roles
            "slave_read_only": 1,
            "replica_announced": 1,
        }
    fields["connected_slaves"] = len(cluster.replicas)
    for number, one in enumerate(cluster.replicas):
        fields[f"slave{number}"] = f"ip={one.host},port={one.port},state=online,offset=0,lag=0"
    return fields | {
        "master_failover_state": "no-failover",
        "master_replid": _NO_REPLICATION_ID,
        "master_replid2": _NO_REPLICATION_ID,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    }
