"""Replicas among real shards: who answers what, what clients are told of them, and a load that reaches both of two nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.cluster import LoadBalancingStrategy, RedisCluster

from pipeline.format.desired import Goal
from pipeline.format.slots import SlotRange, even_ranges, key_slot
from pipeline.format.topology import Node, Shard, Topology
from pipeline.format.values import encode_string
from pipeline.load.states import State
from pipeline.load.verification import verify
from tests.support.ports import free_port
from tests.support.redis_server import running_pair
from tests.support.resp import RawClient
from tests.support.s3 import S3, s3_store
from tests.support.shards import ShardProcess
from tests.support.sidecars import CLUSTER, Head, NodeUnderTest
from tests.support.versions import build_version, publish_version

OK = b"+OK\r\n"
V1, V2 = "2026-11-22", "2026-11-23"
ROWS = {b"plane_%d" % number: encode_string(b"N%d" % number) for number in range(200)}


@dataclass
class Pair:
    """A primary of all slots and its replica, on two nodes."""

    primary: ShardProcess
    replica: ShardProcess

    def topology(self, epoch: int, *, replicated: bool = True) -> Topology:
        owner = Shard(name=self.primary.name, host="127.0.0.1", port=self.primary.port, slots=(SlotRange(first=0, last=16383),))
        copy = Shard(
            name=self.replica.name,
            host="127.0.0.1",
            port=self.replica.port,
            slots=(),
            replica_of=owner.name if replicated else None,
        )
        nodes = (
            Node(name="node-1", sidecar_url="http://127.0.0.1:1", shards=(owner,)),
            Node(name="node-2", sidecar_url="http://127.0.0.1:2", shards=(copy,)),
        )
        return Topology(cluster=CLUSTER, epoch=epoch, nodes=nodes)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    members = Pair(*(ShardProcess(f"node-{number}-a", tmp_path / f"s{number}", free_port()) for number in (1, 2)))
    try:
        for one in (members.primary, members.replica):
            one.follow(members.topology(3))
            one.start()
        yield members
    finally:
        members.primary.stop()
        members.replica.stop()


def activate(shard: ShardProcess, version: str = V1) -> None:
    if not shard.paths.version("plane", version).exists():
        publish_version(shard.paths, "plane", version, ROWS)
    with RawClient(shard.admin_socket) as admin:
        assert admin.call("REDKV", "REGISTER", "plane", "plane_") == OK
        assert admin.call("REDKV", "ACTIVATE", "plane", version) == OK


def moved(pair: Pair, key: bytes) -> bytes:
    return b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(key), pair.primary.port)


def test_a_replica_answers_reads_of_versions_to_those_who_said_readonly(pair: Pair) -> None:
    activate(pair.primary)
    activate(pair.replica)
    here = moved(pair, b"plane_7")
    with RawClient(pair.replica.port) as client:
        assert client.call("GET", "plane_7") == here
        assert client.call("READONLY") == OK
        assert client.call("GET", "plane_7") == b"$2\r\nN7\r\n"
        assert client.call("TYPE", "plane_7") == b"+string\r\n"
        assert client.call("EXISTS", "plane_7", "plane_7") == b":2\r\n"
        assert client.call("SET", "plane_7", "x") == here
        assert client.call("DEL", "plane_7") == here
        assert client.call("MGET", "plane_7", "plane_8") == b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        assert b" flags=r " in client.call("CLIENT", "INFO")
        assert client.call("MULTI") == OK
        assert client.call("GET", "plane_7") == b"+QUEUED\r\n"
        assert client.call("EXEC") == b"*1\r\n$2\r\nN7\r\n"
        assert client.call("MULTI") == OK
        assert client.call("SET", "plane_7", "x") == here
        assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        assert client.call("READWRITE") == OK
        assert client.call("GET", "plane_7") == here
        assert client.call("READONLY") == OK
        assert client.call("RESET") == b"+RESET\r\n"
        assert client.call("GET", "plane_7") == here


def test_a_replica_sends_on_what_it_does_not_hold(pair: Pair) -> None:
    activate(pair.primary)
    with RawClient(pair.replica.port) as client:
        assert client.call("READONLY") == OK
        assert client.call("GET", "plane_7") == moved(pair, b"plane_7")  # a dataset that it has not loaded
        with RawClient(pair.replica.admin_socket) as admin:
            assert admin.call("REDKV", "REGISTER", "plane", "plane_") == OK
        assert client.call("GET", "plane_7") == moved(pair, b"plane_7")
        activate(pair.replica)
        assert client.call("GET", "plane_7") == b"$2\r\nN7\r\n"
        assert client.call("GET", "own") == moved(pair, b"own")  # a live key, if it is one


def test_slots_with_replicas_take_no_writes_of_clients(pair: Pair) -> None:
    activate(pair.primary)
    with RawClient(pair.primary.port) as client, RawClient(pair.primary.admin_socket) as admin:
        for door in (client, admin):
            for words in (("SET", "own", "x"), ("DEL", "own"), ("INCR", "own"), ("EXPIRE", "own", 10)):
                reply = door.call(*words)
                assert reply.startswith(b"-NOPERM the slots of shard 'node-1-a' have replicas"), (words, reply)
        assert client.call("SET", "plane_7", "x").startswith(b"-NOPERM keys under 'plane_' belong to dataset 'plane'")
        assert client.call("GET", "own") == b"$-1\r\n"
        pair.primary.follow(pair.topology(4, replicated=False))
        assert admin.call("REDKV", "TOPOLOGY") == b":4\r\n"
        assert client.call("SET", "own", "x") == OK
        pair.primary.follow(pair.topology(5))
        assert admin.call("REDKV", "TOPOLOGY") == b":5\r\n"
        assert client.call("SET", "own", "y").startswith(b"-NOPERM ")
        assert client.call("GET", "own") == b"$1\r\nx\r\n"


def test_a_shard_that_becomes_a_replica_serves_what_its_version_was_made_for(pair: Pair) -> None:
    pair.replica.follow(pair.topology(4, replicated=False))
    with RawClient(pair.replica.admin_socket) as admin, RawClient(pair.replica.port) as client:
        assert admin.call("REDKV", "TOPOLOGY") == b":4\r\n"
        publish_version(pair.replica.paths, "plane", V1, ROWS, slots=tuple(even_ranges(2)[:1]))
        activate(pair.replica)
        assert client.call("READONLY") == OK
        low, high = (next(key for key in ROWS if key_slot(key) in half) for half in even_ranges(2))
        assert client.call("GET", low) == moved(pair, low)
        pair.replica.follow(pair.topology(5))
        assert admin.call("REDKV", "TOPOLOGY") == b":5\r\n"
        assert client.call("GET", low).startswith(b"$")
        assert client.call("GET", high) == moved(pair, high)
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", key_slot(low)).startswith(b":")
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", key_slot(high)).startswith(b"-LOADING slot ")
        assert admin.call("REDKV", "ACTIVATE", "plane", V1).startswith(b"-REDKV SlotsMovedError")


_NUMBERS = re.compile(rb"127\.0\.0\.1:\d+@\d+|:\d+\r\n|port=\d+|(?<=\r\n)\d+(?=\r\n)|offset=\d+|0 \d+ \d+ (?=connected)")


def shape(reply: bytes, names: dict[bytes, bytes]) -> bytes:
    """A reply without what differs between two clusters: ids by role, no numbers but slots."""
    for node_id, name in names.items():
        reply = reply.replace(node_id, name)
    return re.sub(rb"\$\d+\r\n", b"$\r\n", _NUMBERS.sub(b"N", reply))


ASKED = (
    ("CLUSTER", "SLOTS"),
    ("CLUSTER", "SHARDS"),
    ("ROLE",),
    ("HELLO", "2"),
    ("CLUSTER", "LINKS", "x"),
    ("CLUSTER", "REPLICAS", "x"),
    ("CLUSTER", "COUNT-FAILURE-REPORTS", "x"),
    ("CLUSTER", "COUNTKEYSINSLOT", "x"),
    ("CLUSTER", "COUNTKEYSINSLOT", "16384"),
    ("CLUSTER", "COUNTKEYSINSLOT", "-1"),
    ("CLUSTER", "COUNTKEYSINSLOT", "5"),
    ("CLUSTER", "GETKEYSINSLOT", "5", "-1"),
    ("CLUSTER", "GETKEYSINSLOT", "16384", "1"),
    ("CLUSTER", "GETKEYSINSLOT", "5", "x"),
    ("CLUSTER", "GETKEYSINSLOT", "5", "10"),
    ("COMMAND", "INFO", "readonly", "readwrite", "role", "cluster|slaves", "cluster|replicas", "cluster|reset", "cluster|help"),
    ("COMMAND", "INFO", "cluster|meet", "cluster|bumpepoch", "cluster|links", "cluster|countkeysinslot", "cluster|getkeysinslot"),
    ("COMMAND", "INFO", "cluster|count-failure-reports", "cluster|failover", "cluster|forget", "cluster|saveconfig"),
    ("GET", "foo"),
    ("MGET", "foo", "bar"),
)


@pytest.mark.parametrize("protocol", [2, 3])
def test_replicas_are_shown_as_redis_shows_them(pair: Pair, tmp_path: Path, protocol: int) -> None:
    with running_pair(tmp_path) as ports:
        for of_redis, of_ours in zip(ports, (pair.primary.port, pair.replica.port), strict=True):
            with RawClient(of_redis) as theirs, RawClient(of_ours) as ours:
                names = {}
                for client, both in ((theirs, ports), (ours, (pair.primary.port, pair.replica.port))):
                    client.call("HELLO", protocol)
                    for port, name in zip(both, (b"primary", b"replica"), strict=True):
                        with RawClient(port) as one:
                            names[one.call("CLUSTER", "MYID").split(b"\r\n")[1]] = name
                for words in ASKED:
                    assert shape(ours.call(*words), names) == shape(theirs.call(*words), names), words
                ids = {name: [node_id for node_id, known in names.items() if known == name] for name in (b"primary", b"replica")}
                for role in (b"primary", b"replica"):
                    their_id, our_id = ids[role]
                    for word in ("REPLICAS", "SLAVES", "COUNT-FAILURE-REPORTS"):
                        expected = shape(theirs.call("CLUSTER", word, their_id), names)
                        assert shape(ours.call("CLUSTER", word, our_id), names) == expected, (word, role)
                lines = [sorted(shape(one.call("CLUSTER", "NODES"), names).splitlines()[1:]) for one in (ours, theirs)]
                assert [_columns(line) for line in lines[0]] == [_columns(line) for line in lines[1]]
                fields = [_fields(one.call("INFO", "replication")) for one in (ours, theirs)]
                assert fields[0].keys() == fields[1].keys()
                for field in ("role", "connected_slaves", "master_link_status", "slave_read_only"):
                    assert fields[0].get(field) == fields[1].get(field), field


def _columns(line: bytes) -> list[bytes]:
    """Of a line of CLUSTER NODES, what both must say: id, flags, primary, link, slots."""
    words = line.split()
    return [words[0], *words[2:4], *words[7:]] if len(words) > 7 else words


def _fields(reply: bytes) -> dict[str, str]:
    lines = reply.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith(("$", "=")))


def test_what_would_change_the_cluster_is_refused(pair: Pair) -> None:
    with RawClient(pair.primary.port) as client:
        for words in (
            ("ADDSLOTS", 1),
            ("ADDSLOTSRANGE", 1, 2),
            ("BUMPEPOCH",),
            ("DELSLOTS", 1),
            ("DELSLOTSRANGE", 1, 2),
            ("FAILOVER",),
            ("FLUSHSLOTS",),
            ("FORGET", "x"),
            ("MEET", "127.0.0.1", 1),
            ("REPLICATE", "x"),
            ("RESET",),
            ("SAVECONFIG",),
            ("SET-CONFIG-EPOCH", 1),
            ("SETSLOT", 1, "STABLE"),
        ):
            reply = client.call("CLUSTER", *words)
            assert reply.startswith(b"-ERR CLUSTER %b is not supported: " % words[0].encode()), reply
            assert b"`redkv cluster apply`" in reply
        assert b"+COUNTKEYSINSLOT <slot>\r\n" in client.call("CLUSTER", "HELP")
        assert client.call("CLUSTER", "SETSLOT") == b"-ERR wrong number of arguments for 'cluster|setslot' command\r\n"


def test_the_keys_of_a_slot_are_counted_exactly(pair: Pair) -> None:
    slot = key_slot(b"{tag}")
    with RawClient(pair.primary.admin_socket) as admin, RawClient(pair.primary.port) as client:
        pair.primary.follow(pair.topology(4, replicated=False))
        assert admin.call("REDKV", "TOPOLOGY") == b":4\r\n"
        for number in range(1_500):
            client.send(b"SET {tag}live:%d x\r\n" % number)
        assert {client.reply() for _ in range(1_500)} == {OK}
        assert client.call("SET", "{tag}gone", "x", "PXAT", 1) == OK
        rows = {b"{tag}bulk_%d" % number: encode_string(b"x") for number in range(2_000)}
        rows |= {b"{tag}bulk_gone": encode_string(b"x", 1), b"{tag}bulk_{}": encode_string(b"x")}
        publish_version(pair.primary.paths, "bulk", V1, rows)
        assert admin.call("REDKV", "REGISTER", "bulk", "{tag}bulk_") == OK
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", slot) == b":1500\r\n"
        assert admin.call("REDKV", "ACTIVATE", "bulk", V1) == OK
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", slot) == b":3501\r\n"
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", slot + 1) == b":0\r\n"
        shown = client.call("CLUSTER", "GETKEYSINSLOT", slot, 5_000).split(b"\r\n")
        keys = set(shown[2::2])
        assert shown[0] == b"*3501"
        assert keys == {key for key in rows if key != b"{tag}bulk_gone"} | {b"{tag}live:%d" % number for number in range(1_500)}
        assert client.call("CLUSTER", "GETKEYSINSLOT", slot, 3).startswith(b"*3\r\n")
        assert client.call("CLUSTER", "GETKEYSINSLOT", slot, 0) == b"*0\r\n"
        assert client.call("MULTI") == OK
        assert client.call("SET", "{tag}live:again", "x") == b"+QUEUED\r\n"
        assert client.call("CLUSTER", "COUNTKEYSINSLOT", slot) == b"+QUEUED\r\n"
        assert client.call("EXEC") == b"*2\r\n+OK\r\n:3502\r\n"


def test_a_count_under_way_is_of_the_version_that_it_began_with(pair: Pair) -> None:
    slot = key_slot(b"{tag}")
    with RawClient(pair.primary.admin_socket) as admin, RawClient(pair.primary.port) as client:
        assert admin.call("REDKV", "REGISTER", "bulk", "{tag}bulk_") == OK
        sizes = {V1: 6_000, V2: 3_000}
        for version, count in sizes.items():
            rows = {b"{tag}bulk_%d" % number: encode_string(b"x") for number in range(count)}
            publish_version(pair.primary.paths, "bulk", version, rows, build_id=f"build-{version}")
        for version in (V1, V2, V1, V2):
            assert admin.call("REDKV", "ACTIVATE", "bulk", version) == OK
            for _ in range(3):
                client.send(b"CLUSTER COUNTKEYSINSLOT %d\r\n" % slot)
            other = V2 if version == V1 else V1
            assert admin.call("REDKV", "ACTIVATE", "bulk", other) == OK
            assert admin.call("REDKV", "CLOSE", "bulk", version) == OK
            counts = [int(client.reply()[1:]) for _ in range(3)]
            assert set(counts) <= set(sizes.values())
            assert counts == sorted(counts, key=lambda count: count != sizes[version])  # none goes back to the old one


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_store() as one:
        yield one


def test_a_load_reaches_the_replica_and_clients_read_it_there(pair: Pair, tmp_path: Path, s3: S3) -> None:
    store = s3.fresh()
    head = Head(store.store)
    head.topology(pair.topology(4))
    nodes = [
        NodeUnderTest(tmp_path / name, store.url, store.environment, [shard], name=name)
        for name, shard in (("node-1", pair.primary), ("node-2", pair.replica))
    ]
    try:
        for node in nodes:
            node.root.mkdir()
            node.start()
        built = build_version(store.store, "plane", V1, ROWS, prefix="plane_")
        head.want(plane=("plane_", [built.wanted(Goal.READY)]))
        ready = {node.name: node.until("plane", V1, State.READY) for node in nodes}
        assert ready["node-2"].shards == {"node-2-a": ready["node-1"].shards["node-1-a"]}
        assert verify(built.manifest, pair.topology(4), ready) == 2 * len(built.manifest.samples)
        head.want(plane=("plane_", [built.wanted(Goal.ACTIVE)]))
        for node in nodes:
            node.until("plane", V1, State.ACTIVE)
        _read_by_cluster_client(pair)
        pair.primary.kill()
        with redis.Redis(host="127.0.0.1", port=pair.replica.port) as client:
            client.execute_command("READONLY")
            assert [client.get(key) for key in ROWS] == [b"N%d" % number for number in range(len(ROWS))]
    finally:
        for node in nodes:
            node.kill()


def _read_by_cluster_client(pair: Pair) -> None:
    with RedisCluster(host="127.0.0.1", port=pair.primary.port, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN) as client:
        assert {node.server_type for node in client.get_nodes()} == {"primary", "replica"}
        for _ in range(2):
            assert [client.get(key) for key in ROWS] == [b"N%d" % number for number in range(len(ROWS))]
        with pytest.raises(redis.exceptions.NoPermissionError, match="have replicas"):
            client.set("own", "x")
    reads = {}
    for shard in (pair.primary, pair.replica):
        with redis.Redis(host="127.0.0.1", port=shard.port) as plain:
            reads[shard.name] = plain.info("stats")["total_commands_processed"]
    assert min(reads.values()) > len(ROWS) / 2, reads  # both answered
