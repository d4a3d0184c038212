"""What a shard says of itself: INFO, the slow log, latency histograms, metrics, logs; and that it counts rightly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.format.values import encode_string
from tests.support.ports import free_port
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

OK = b"+OK\r\n"
REDIS_EXPORTER_READS = """
redis_version redis_mode os process_id run_id tcp_port uptime_in_seconds connected_clients maxclients blocked_clients used_memory
used_memory_rss used_memory_peak maxmemory mem_fragmentation_ratio total_system_memory loading rdb_changes_since_last_save
rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status aof_enabled aof_rewrite_in_progress aof_last_write_status
total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes total_net_output_bytes
rejected_connections evicted_keys pubsub_channels role connected_slaves master_repl_offset used_cpu_sys used_cpu_user cluster_enabled
"""


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path, options={"metrics_port": free_port(), "requirepass": "s3cret-word"}) as [one]:
        yield one


@pytest.fixture
def client(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.port) as one:
        assert one.call("AUTH", "s3cret-word") == OK
        yield one


def info(client: RawClient, *sections: str) -> dict[str, str]:
    text = client.call("INFO", *sections).partition(b"\r\n")[2].decode()
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def fields(line: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.split(","))


def metrics(shard: ShardProcess) -> dict[tuple[str, ...], float]:
    with urlopen(f"http://127.0.0.1:{shard.options['metrics_port']}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def log_lines(shard: ShardProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in shard.log.splitlines() if line.startswith("{")]


def test_info_has_what_monitors_read(client: RawClient) -> None:
    found = info(client)
    assert [name for name in REDIS_EXPORTER_READS.split() if name not in found] == []
    assert found["redis_version"] == "7.0.15"
    assert int(found["used_memory"]) > 10 << 20
    assert int(found["block_cache_capacity_bytes"]) == 32 << 20
    assert not any(name.startswith("cmdstat_") for name in found)
    assert "cmdstat_info" in info(client, "everything")
    assert info(client, "nosuch") == {}
    assert "wal_bytes" in info(client, "rocksdb")


def test_memory_comes_from_jemalloc_where_it_is_installed(client: RawClient) -> None:
    assert info(client, "memory")["mem_allocator"].partition("-")[0] == ("jemalloc" if find_library("jemalloc") else "libc")


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "REDKV_JEMALLOC_TRIED"])
def test_it_stays_what_it_was_where_that_was_chosen_or_tried(shard: ShardProcess, variable: str) -> None:
    shard.stop()
    shard.environment[variable] = "libchosen.so"  # the loader says that there is none, and goes on
    shard.start()
    with RawClient(shard.admin_socket) as client:
        assert info(client, "memory")["mem_allocator"] == "libc"


def test_what_the_caches_answer_is_counted(shard: ShardProcess, client: RawClient) -> None:
    keys = [f"city:{number}" for number in range(300)]
    publish_version(shard.paths, "city", "2026-11-22", {key.encode(): encode_string(b"x" * 100) for key in keys})
    with RawClient(shard.admin_socket) as admin:
        assert admin.call("REDKV", "REGISTER", "city", "city:") == OK
        assert admin.call("REDKV", "ACTIVATE", "city", "2026-11-22") == OK
    assert len(keys) <= int(fields(info(client, "keyspace")["db0"])["keys"]) < len(keys) + 10  # and some notes of the shard's own
    before = {name: int(value) for name, value in info(client, "caches").items()}
    for _ in range(3):
        for key in keys:
            client.call("GET", key)
    client.call("GET", "city:none")
    gained = {name: int(value) - before[name] for name, value in info(client, "caches").items()}
    assert (gained["hot_cache_hits"], gained["hot_cache_misses"]) == (2 * len(keys), len(keys) + 1)
    looks = gained["block_cache_hits"] + gained["block_cache_misses"]
    assert looks in {len(keys), len(keys) + 1}  # one more if the bloom filter is wrong about the absent key
    assert 0 < gained["block_cache_misses"] < len(keys) / 10
    stats = info(client, "stats")
    assert (stats["keyspace_hits"], stats["keyspace_misses"]) == (str(3 * len(keys)), "1")
    assert metrics(shard)["redkv_shard_hot_cache_hits_total",] == int(info(client, "caches")["hot_cache_hits"])


def test_calls_failures_and_refusals_are_counted_exactly(client: RawClient) -> None:
    client.call("CONFIG", "RESETSTAT")
    sets = [encode_command("SET", "{a}k", number) for number in range(100)]
    gets = [encode_command("get", "{a}k")] * 50 + [encode_command("GeT", "{a}k")] * 3
    odd = ["GET", "HGET {a}k f", "NOSUCH x", "MGET a b", "CLIENT GETNAME", "client NoSuch"]
    commands = sets + gets + [encode_command(*line.split()) for line in odd]
    client.send(b"".join(commands))
    for _ in commands:
        client.reply()
    client.call("GET", "{a}k")
    client.call("Get", "{a}k")
    stats = {name.removeprefix("cmdstat_"): fields(value) for name, value in info(client, "commandstats").items()}
    counted = {name: (one["calls"], one["rejected_calls"], one["failed_calls"]) for name, one in stats.items()}
    assert counted == {
        "info": ("1", "0", "0"),
        "set": ("100", "0", "0"),
        "get": ("55", "1", "0"),
        "hget": ("1", "0", "1"),
        "mget": ("0", "1", "0"),
        "client|getname": ("1", "0", "0"),
    }
    assert info(client, "errorstats") == {
        "errorstat_CROSSSLOT": "count=1",
        "errorstat_ERR": "count=3",
        "errorstat_WRONGTYPE": "count=1",
    }


def test_times_are_sampled_and_shown_as_histograms(client: RawClient) -> None:
    for _ in range(80):
        client.call("GET", "{a}k")
    reply = client.call("LATENCY", "HISTOGRAM", "get").split(b"\r\n")
    calls = int(reply[reply.index(b"calls") + 1][1:])
    assert calls >= 8
    histogram = [int(one[1:]) for one in reply[reply.index(b"histogram_usec") + 2 : -1]]
    assert histogram[1::2] == sorted(set(histogram[1::2]))
    assert histogram[-1] == calls
    shown = fields(info(client, "latencystats")["latency_percentiles_usec_get"])
    assert 0 < float(shown["p50"]) <= float(shown["p99"]) <= float(shown["p99.9"])
    assert client.call("CONFIG", "SET", "latency-tracking", "no") == OK
    assert info(client, "latencystats") == {}


def test_a_pipeline_is_one_entry_of_the_slow_log(client: RawClient) -> None:
    assert client.call("CONFIG", "SET", "slowlog-log-slower-than", 0) == OK
    client.send(b"".join(encode_command("ECHO", number) for number in range(100)))
    for _ in range(100):
        client.reply()
    client.call("CONFIG", "SET", "slowlog-log-slower-than", -1)
    entries = client.call("SLOWLOG", "GET", -1)
    assert b"ECHO 0\r\n" in entries
    assert b" more commands)" in entries
    before = client.call("SLOWLOG", "LEN")
    client.call("ECHO", "not logged")
    assert client.call("SLOWLOG", "LEN") == before


def test_prometheus_reads_commands_errors_storage_and_the_loop(shard: ShardProcess, client: RawClient) -> None:
    for number in range(32):
        client.call("SET", "{a}k", number)
    client.call("HGET", "{a}k", "f")
    found = metrics(shard)
    assert found["redkv_shard_command_calls_total", "set"] == 32
    assert found["redkv_shard_command_failures_total", "hget"] == 1
    assert found["redkv_shard_errors_total", "WRONGTYPE"] == 1
    assert found["redkv_shard_connected_clients",] == 1
    assert found["redkv_shard_command_seconds_count", "set"] >= 3
    assert found["redkv_shard_command_seconds_bucket", "set", "+Inf"] == found["redkv_shard_command_seconds_count", "set"]
    while not found["redkv_shard_loop_lateness_seconds_count",]:  # the first look comes 20 ms after the start
        found = metrics(shard)
    assert found["redkv_shard_rocksdb_memtable_bytes",] > 0
    assert found["redkv_shard_rocksdb_wal_bytes",] > 0
    assert found["redkv_shard_loop_longest_stall_seconds",] >= 0


def test_the_password_is_shown_nowhere(shard: ShardProcess, client: RawClient) -> None:
    secret = b"s3cret-word"
    client.call("CONFIG", "SET", "slowlog-log-slower-than", 0)
    with RawClient(shard.port) as other:
        assert other.call("AUTH", "s3cret-wrong").startswith(b"-WRONGPASS")
        assert other.call("HELLO", 3, "AUTH", "default", secret).startswith(b"%7")
    assert client.call("CONFIG", "SET", "requirepass", "s3cret-word-2") == OK
    shown = [client.call("CONFIG", "GET", "*"), client.call("INFO", "everything"), client.call("SLOWLOG", "GET", -1)]
    shown += [client.call("CLIENT", "LIST"), shard.log.encode(), repr(metrics(shard)).encode()]
    assert [part for part in shown if b"s3cret" in part] == []
    assert any(line.get("event") == "authentication failed" for line in log_lines(shard))


def test_what_clients_can_cause_is_logged_sparingly(shard: ShardProcess) -> None:
    for _ in range(20):
        with RawClient(shard.port) as other:
            assert other.call("AUTH", "x").startswith(b"-WRONGPASS")
    with RawClient(shard.admin_socket) as admin:
        assert info(admin, "stats")["auth_failures"] == "20"
    assert 1 <= sum(line.get("event") == "authentication failed" for line in log_lines(shard)) < 20


def test_shutdown_stops_in_order(shard: ShardProcess, client: RawClient) -> None:
    assert client.call("SET", "a", 1) == OK
    client.send(encode_command("SHUTDOWN", "NOSAVE"))
    assert client.at_end()
    assert shard.process is not None
    assert shard.process.wait(10) == 0
    assert '"event": "stopped"' in shard.log
    shard.start()
    with RawClient(shard.admin_socket) as admin:
        assert admin.call("GET", "a") == b"$1\r\n1\r\n"
