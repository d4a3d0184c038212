"""Version directories behind a real shard: registered, opened, pinned, made active, taken back, closed, and all of it over restarts."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.admin import LatencyReport, ShardStatus, decode_refusal
from pipeline.format.errors import (
    FormatError,
    LiveKeysError,
    NodeError,
    PrefixOverlapError,
    RedkvError,
    SlotsMovedError,
    StaleEpochError,
    UnknownVersionError,
    UsageError,
    VersionActiveError,
)
from pipeline.format.slots import SlotRange
from pipeline.format.values import encode_hash, encode_string, encode_zset
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards, topology_of
from tests.support.versions import ALL_SLOTS, publish_version

OK = b"+OK\r\n"
V1, V2 = "2026-11-22", "2026-11-23"


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path) as [one]:
        yield one


@pytest.fixture
def admin(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.admin_socket) as client:
        yield client


@pytest.fixture
def client(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.port) as one:
        yield one


def refusal(reply: bytes) -> RedkvError:
    assert reply.startswith(b"-REDKV "), reply
    return decode_refusal(reply[1:-2].decode())


def status(admin: RawClient) -> ShardStatus:
    return ShardStatus.from_json(admin.call("REDKV", "STATUS").partition(b"\r\n")[2], "STATUS")


def rows(mark: str) -> dict[bytes, bytes]:
    return {b"plane_%d" % number: encode_hash([(b"tail", b"N%d" % number), (b"mark", mark.encode())]) for number in range(500)}


def publish_two(shard: ShardProcess, admin: RawClient) -> None:
    for version, mark in ((V1, "one"), (V2, "two")):
        publish_version(shard.paths, "plane", version, rows(mark), build_id=f"build-{mark}")
    assert admin.call("REDKV", "REGISTER", "plane", "plane_") == OK


def test_a_version_is_read_when_it_is_active_and_the_old_one_comes_back(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    publish_two(shard, admin)
    assert client.call("HGET", "plane_7", "mark") == b"$-1\r\n"
    assert admin.call("REDKV", "OPEN", "plane", V1) == OK
    assert client.call("EXISTS", "plane_7") == b":0\r\n"
    for version, mark in ((V1, b"one"), (V2, b"two"), (V1, b"one"), (V1, b"one")):
        assert admin.call("REDKV", "ACTIVATE", "plane", version) == OK
        assert client.call("HGETALL", "plane_7") == b"*4\r\n$4\r\ntail\r\n$2\r\nN7\r\n$4\r\nmark\r\n$3\r\n%b\r\n" % mark
        assert client.call("HMGET", "plane_499", "mark", "tail", "no") == b"*3\r\n$3\r\n%b\r\n$4\r\nN499\r\n$-1\r\n" % mark
    assert client.call("TYPE", "plane_7") == b"+hash\r\n"
    assert client.call("GET", "plane_7").startswith(b"-WRONGTYPE")
    known = status(admin).datasets["plane"]
    assert (known.active, known.active_build_id, known.opened) == (V1, "build-one", (V1,))


def test_hot_keys_are_ready_when_a_version_becomes_active_and_when_it_comes_back(
    shard: ShardProcess, admin: RawClient, client: RawClient
) -> None:
    publish_two(shard, admin)
    keys = sorted(rows(""))[:100]
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    assert client.call("SET", "own", "value") == OK
    for version, mark in ((V1, b"one"), (V2, b"two"), (V1, b"one"), (V2, b"two")):
        assert admin.call("REDKV", "EXPECT", "plane", version) == OK
        assert admin.call("REDKV", "ACTIVATE", "plane", version) == OK
        before = misses(client)
        for key in keys:
            assert client.call("HGET", key, "mark") == b"$3\r\n%b\r\n" % mark
        assert misses(client) - before == (len(keys) if before < len(keys) else 0)
    assert client.call("HGET", "plane_400", "mark") == b"$3\r\ntwo\r\n"
    assert client.call("GET", "own") == b"$5\r\nvalue\r\n"


def test_a_version_that_is_expected_leaves_the_hot_keys_of_the_active_one(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    one = b"$3\r\none\r\n"
    assert client.call("HGET", "plane_7", "mark") == one
    before = misses(client)
    assert admin.call("REDKV", "EXPECT", "plane", V2) == OK
    assert client.call("HGET", "plane_7", "mark") == one
    assert misses(client) == before


def misses(client: RawClient) -> int:
    found = re.search(rb"hot_cache_misses:(\d+)", client.call("INFO", "caches"))
    assert found is not None
    return int(found[1])


def test_a_pinned_connection_reads_its_version_beside_the_active_one(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    publish_two(shard, admin)
    assert isinstance(refusal(admin.call("REDKV", "PIN", "plane", V2)), UnknownVersionError)
    for version in (V1, V2):
        assert admin.call("REDKV", "OPEN", "plane", version) == OK
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    assert admin.call("REDKV", "PIN", "plane", V2) == OK
    assert admin.call("HGET", "plane_7", "mark") == b"$3\r\ntwo\r\n"
    assert client.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"
    assert admin.call("REDKV", "UNPIN") == OK
    assert admin.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"


def test_a_closed_version_can_be_removed_and_its_last_readers_finish(shard: ShardProcess, admin: RawClient) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    with RawClient(shard.admin_socket) as reader:
        assert reader.call("REDKV", "PIN", "plane", V1) == OK
        assert isinstance(refusal(admin.call("REDKV", "CLOSE", "plane", V1)), VersionActiveError)
        assert admin.call("REDKV", "ACTIVATE", "plane", V2) == OK
        assert admin.call("REDKV", "CLOSE", "plane", V1) == OK
        shutil.rmtree(shard.paths.version("plane", V1))
        assert reader.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"
        assert status(admin).datasets["plane"].opened == (V2,)
    assert admin.call("REDKV", "CLOSE", "plane", V1) == OK
    assert isinstance(refusal(admin.call("REDKV", "OPEN", "plane", V1)), UnknownVersionError)


def test_strings_and_sorted_sets_are_served_from_versions_too(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    later_ms = 4_000_000_000_000
    stored = {
        b"mix_s": encode_string(b"value"),
        b"mix_e": encode_string(b"value", later_ms),
        b"mix_x": encode_string(b"gone", 1),
        b"mix_z": encode_zset([(b"a", 2.0), (b"b", 1.5)], later_ms),
    }
    publish_version(shard.paths, "mix", V1, stored)
    assert admin.call("REDKV", "REGISTER", "mix", "mix_") == OK
    assert admin.call("REDKV", "ACTIVATE", "mix", V1) == OK
    assert client.call("GET", "mix_s") == b"$5\r\nvalue\r\n"
    assert client.call("GET", "mix_e") == b"$5\r\nvalue\r\n"
    assert client.call("TTL", "mix_s") == b":-1\r\n"
    assert int(client.call("PTTL", "mix_e")[1:]) > 1e12
    assert client.call("GET", "mix_x") == b"$-1\r\n"
    assert client.call("TTL", "mix_x") == b":-2\r\n"
    assert client.call("ZRANGE", "mix_z", 0, -1, "WITHSCORES") == b"*4\r\n$1\r\nb\r\n$3\r\n1.5\r\n$1\r\na\r\n$1\r\n2\r\n"


@pytest.mark.parametrize("via", ["port", "admin_socket"])
def test_clients_do_not_write_below_a_prefix(shard: ShardProcess, admin: RawClient, via: str) -> None:
    publish_two(shard, admin)
    with RawClient(getattr(shard, via)) as writer:
        for active in (False, True):
            if active:
                assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
            for words in (("SET", "plane_7", "x"), ("DEL", "plane_7"), ("SET", "plane_", "x", "NX")):
                reply = writer.call(*words)
                assert reply.startswith(b"-NOPERM ")
                assert b"'plane'" in reply
        assert writer.call("SET", "plane", "x") == OK
        assert writer.call("GET", "plane") == b"$1\r\nx\r\n"


def test_live_keys_below_a_prefix_refuse_a_registration(admin: RawClient, client: RawClient) -> None:
    for number in range(40):
        assert client.call("SET", f"route:{number}", "x") == OK
    assert client.call("SET", "routf", "x") == OK
    assert client.call("SET", "{tag}_1", "x") == OK
    assert client.call("SET", "old:1", "x", "PXAT", 1) == OK
    refused = refusal(admin.call("REDKV", "REGISTER", "route", "route:"))
    assert isinstance(refused, LiveKeysError)
    assert len(refused.fields["keys"]) == 10
    assert all(key.startswith("route:") for key in refused.fields["keys"])
    tagged = refusal(admin.call("REDKV", "REGISTER", "tag", "{tag}_"))
    assert isinstance(tagged, LiveKeysError)
    assert tagged.fields["keys"] == ["{tag}_1"]
    assert client.call("SET", "route:1", "y") == OK
    assert client.call("GET", "route:1") == b"$1\r\ny\r\n"
    assert admin.call("REDKV", "REGISTER", "old", "old:") == OK
    assert status(admin).datasets.keys() == {"old"}
    for number in range(40):
        client.call("DEL", f"route:{number}")
    assert admin.call("REDKV", "REGISTER", "route", "route:") == OK


def test_refusals_are_named(shard: ShardProcess, admin: RawClient) -> None:
    publish_two(shard, admin)
    refused: list[tuple[type[RedkvError], list[str]]] = [
        (PrefixOverlapError, ["REGISTER", "other", "plane_x"]),
        (PrefixOverlapError, ["REGISTER", "other", "p"]),
        (UsageError, ["REGISTER", "plane", "elsewhere_"]),
        (UsageError, ["REGISTER", "Not-A-Name", "x_"]),
        (UsageError, ["REGISTER", "other", ""]),
        (UsageError, ["OPEN", "plane", "../../live"]),
        (UnknownVersionError, ["OPEN", "other", V1]),
        (UnknownVersionError, ["OPEN", "plane", "2026-01-01"]),
        (UnknownVersionError, ["ACTIVATE", "plane", "2026-01-01"]),
    ]
    for kind, words in refused:
        assert type(refusal(admin.call("REDKV", *words))) is kind, words
    identity = shard.paths.version("plane", V2) / "VERSION.json"
    identity.write_text(identity.read_text().replace(V2, V1))
    assert isinstance(refusal(admin.call("REDKV", "OPEN", "plane", V2)), FormatError)
    publish_version(shard.paths, "plane", "2026-11-24", rows("x"), slots=(SlotRange(first=0, last=100),))
    assert isinstance(refusal(admin.call("REDKV", "ACTIVATE", "plane", "2026-11-24")), SlotsMovedError)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    assert isinstance(refusal(admin.call("REDKV", "UNREGISTER", "plane")), VersionActiveError)
    assert admin.call("REDKV", "NOSUCH").startswith(b"-ERR unknown subcommand")
    assert admin.call("REDKV", "PIN", "plane").startswith(b"-ERR wrong number of arguments for 'redkv|pin'")


def test_repeated_admin_commands_change_nothing(shard: ShardProcess, admin: RawClient) -> None:
    publish_two(shard, admin)
    for words in (["REGISTER", "plane", "plane_"], ["OPEN", "plane", V1], ["ACTIVATE", "plane", V1], ["CLOSE", "plane", V2]):
        for _ in range(2):
            assert admin.call("REDKV", *words) == OK
    assert admin.call("REDKV", "REGISTER", "empty", "empty_") == OK
    for _ in range(2):
        assert admin.call("REDKV", "UNREGISTER", "empty") == OK
        assert admin.call("REDKV", "CLOSE", "empty", V1) == OK
    assert status(admin).datasets.keys() == {"plane"}


def test_an_unregistered_prefix_is_free_again(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "OPEN", "plane", V1) == OK
    assert admin.call("REDKV", "UNREGISTER", "plane") == OK
    assert client.call("SET", "plane_7", "x") == OK
    assert client.call("GET", "plane_7") == b"$1\r\nx\r\n"


def test_admin_commands_do_not_exist_for_clients(client: RawClient) -> None:
    assert client.call("REDKV", "STATUS").startswith(b"-ERR unknown command 'REDKV'")
    assert client.call("COMMAND", "INFO", "redkv") == b"*1\r\n*-1\r\n" or client.call("COMMAND", "INFO", "redkv") == b"*1\r\n$-1\r\n"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_everything_is_as_it_was_after_a_restart(shard: ShardProcess, admin: RawClient, client: RawClient, end: str) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "REGISTER", "empty", "empty_") == OK
    assert admin.call("REDKV", "ACTIVATE", "plane", V2) == OK
    assert client.call("SET", "own", "value", "EX", 1000) == OK
    getattr(shard, end)()
    shard.start()
    with RawClient(shard.port) as again, RawClient(shard.admin_socket) as admin_again:
        assert again.call("HGET", "plane_7", "mark") == b"$3\r\ntwo\r\n"
        assert again.call("GET", "own") == b"$5\r\nvalue\r\n"
        assert again.call("SET", "empty_1", "x").startswith(b"-NOPERM")
        assert status(admin_again).datasets["plane"].active == V2


def test_a_version_that_is_gone_at_start_stops_its_dataset_alone(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "ACTIVATE", "plane", V2) == OK
    assert client.call("SET", "own", "value") == OK
    shard.stop()
    shutil.rmtree(shard.paths.version("plane", V2))
    shard.start()
    with RawClient(shard.port) as again, RawClient(shard.admin_socket) as admin_again:
        reply = again.call("HGETALL", "plane_7")
        assert reply.startswith(b"-LOADING dataset 'plane'")
        assert V2.encode() in reply
        assert again.call("GET", "own") == b"$5\r\nvalue\r\n"
        assert status(admin_again).datasets["plane"].active == V2
        assert admin_again.call("REDKV", "ACTIVATE", "plane", V1) == OK
        assert again.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"


def test_the_topology_is_followed_forward_only(shard: ShardProcess, admin: RawClient, client: RawClient) -> None:
    other = ShardProcess("node-2-a", shard.data_dir / "none", 7_001)
    halves = [[SlotRange(first=0, last=8191)], [SlotRange(first=8192, last=16000)]]
    shard.follow(topology_of([shard, other], halves, epoch=5))
    assert admin.call("REDKV", "TOPOLOGY") == b":5\r\n"
    assert client.call("SET", "foo", "x") == b"-MOVED 12182 127.0.0.1:7001\r\n"
    assert client.call("GET", "{06S}") == b"$-1\r\n"
    assert client.call("MGET", "foo", "bar").startswith(b"-CROSSSLOT")
    assert admin.call("SET", "foo", "x") == OK
    shard.follow(topology_of([shard], [ALL_SLOTS], epoch=4))
    assert isinstance(refusal(admin.call("REDKV", "TOPOLOGY")), StaleEpochError)
    shard.paths.topology.write_text("{")
    assert isinstance(refusal(admin.call("REDKV", "TOPOLOGY")), FormatError)
    shard.paths.topology.write_text(json.dumps({"format_version": 99}))
    assert isinstance(refusal(admin.call("REDKV", "TOPOLOGY")), FormatError)
    shard.paths.topology.unlink()
    assert isinstance(refusal(admin.call("REDKV", "TOPOLOGY")), NodeError)
    assert client.call("SET", "foo", "x").startswith(b"-MOVED 12182 ")
    assert status(admin).topology_epoch == 5
    shard.follow(topology_of([shard], [ALL_SLOTS], epoch=6))
    assert admin.call("REDKV", "TOPOLOGY") == b":6\r\n"
    assert client.call("GET", "foo") == b"$1\r\nx\r\n"


def test_without_a_topology_no_slot_is_served(shard: ShardProcess) -> None:
    shard.stop()
    shard.paths.topology.unlink()
    shard.start()
    with RawClient(shard.port) as client:
        assert client.call("GET", "a") == b"-CLUSTERDOWN Hash slot not served\r\n"
        assert client.call("PING") == b"+PONG\r\n"
        assert client.call("CLUSTER", "SLOTS") == b"*0\r\n"
        assert b"cluster_state:fail" in client.call("CLUSTER", "INFO")


def test_live_keys_expire_to_the_millisecond(client: RawClient) -> None:
    end_ms = time.time_ns() // 1_000_000 + 150
    assert client.call("SET", "brief", "x", "PXAT", end_ms) == OK
    while (reply := client.call("GET", "brief")) != b"$-1\r\n":
        assert reply == b"$1\r\nx\r\n"
    assert time.time_ns() // 1_000_000 >= end_ms
    assert client.call("DEL", "brief") == b":0\r\n"


def test_another_build_found_at_start_is_not_opened(shard: ShardProcess, admin: RawClient) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "ACTIVATE", "plane", V2) == OK
    shard.stop()
    identity = shard.paths.version("plane", V2) / "VERSION.json"
    identity.write_text(identity.read_text().replace("build-two", "build-three"))
    shard.start()
    with RawClient(shard.port) as again, RawClient(shard.admin_socket) as admin_again:
        assert again.call("HGETALL", "plane_7").startswith(b"-LOADING dataset 'plane'")
        known = status(admin_again).datasets["plane"]
        assert (known.active, known.opened) == (V2, ())


def test_a_directory_published_over_the_active_one_is_read_once_it_is_activated(
    shard: ShardProcess, admin: RawClient, client: RawClient
) -> None:
    publish_two(shard, admin)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    with RawClient(shard.admin_socket) as reader:
        assert reader.call("REDKV", "PIN", "plane", V1) == OK
        shutil.rmtree(shard.paths.version("plane", V1))
        assert not status(admin).datasets["plane"].current
        assert isinstance(refusal(admin.call("REDKV", "ACTIVATE", "plane", V1)), UnknownVersionError)
        publish_version(shard.paths, "plane", V1, rows("again"), build_id="build-again")
        assert admin.call("REDKV", "OPEN", "plane", V1) == OK
        assert client.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"
        assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
        assert client.call("HGET", "plane_7", "mark") == b"$5\r\nagain\r\n"
        assert reader.call("HGET", "plane_7", "mark") == b"$3\r\none\r\n"
        known = status(admin).datasets["plane"]
        assert (known.active_build_id, known.opened, known.current) == ("build-again", (V1,), True)


def test_clients_commands_are_timed_by_name(admin: RawClient, client: RawClient) -> None:
    for _ in range(80):
        client.call("GET", "own")
        admin.call("GET", "own")
    report = LatencyReport.from_json(admin.call("REDKV", "LATENCY").partition(b"\r\n")[2], "LATENCY")
    assert sum(report.histograms["get"].values()) == 10
    assert client.call("REDKV", "LATENCY").startswith(b"-ERR unknown command")
