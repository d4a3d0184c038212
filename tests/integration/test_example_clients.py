"""The demo's comparison and its client traffic, against a real redis-server: they pass on equal data, and they can fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.cluster import RedisCluster

from examples.nycflights.compare import absent, compare, connect
from examples.nycflights.expected import Value
from examples.nycflights.traffic import LIVE_KEYS, Traffic, live_key, live_value
from tests.support.redis_server import running_redis

HOST = "127.0.0.1"
DATA: dict[bytes, Value] = {
    b"airport:JFK": b"John F Kennedy Intl",
    b"{plane}_N14228": {b"seats": b"149", b"model": b"737-824"},
    b"route:JFK-LAX": [(b"a", -14.5), (b"b", 3.0), (b"c", 3.0)],
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def cluster(port: int) -> Iterator[RedisCluster]:
    with connect(HOST, port) as client:
        client.flushall()
        client.set("airport:JFK", b"John F Kennedy Intl")
        client.hset("{plane}_N14228", mapping={"seats": "149", "model": "737-824"})
        client.zadd("route:JFK-LAX", {"a": -14.5, "b": 3, "c": 3})
        for number in range(LIVE_KEYS):
            client.set(live_key(number), live_value(number))
        yield client


def test_equal_data_has_no_mismatch(cluster: RedisCluster) -> None:
    found = compare(cluster, DATA.items())
    assert (found.keys, found.elements, found.mismatches) == (3, 5, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"airport:JFK", b"John F. Kennedy Intl"),
        (b"airport:LGA", b"La Guardia"),
        (b"{plane}_N14228", {b"seats": b"149"}),
        (b"{plane}_N14228", {b"seats": b"150", b"model": b"737-824"}),
        (b"route:JFK-LAX", [(b"a", -14.5), (b"c", 3.0), (b"b", 3.0)]),
        (b"route:JFK-LAX", [(b"a", -14.5), (b"b", 3.0)]),
    ],
)
def test_a_difference_is_found_and_shown(cluster: RedisCluster, key: bytes, value: Value) -> None:
    found = compare(cluster, (DATA | {key: value}).items())
    assert found.mismatches == 1
    assert repr(key) in found.shown[0]


def test_a_key_whose_row_is_gone_is_found(cluster: RedisCluster) -> None:
    found = compare(cluster, DATA.items())
    absent(cluster, [b"airport:JFK", b"airport:XXX"], found)
    assert found.shown == ["b'airport:JFK' exists, though its row is gone"]


def test_traffic_counts_reads_by_phase_and_meets_no_error(cluster: RedisCluster, port: int) -> None:
    with Traffic(HOST, port, {key: (None, value) for key, value in DATA.items()}, seed=1) as traffic:
        traffic.measure("one", 60)
        traffic.measure("two", 60)
        seen = traffic.finish()
    assert (seen.failed, seen.failures) == (0, [])
    assert seen.reads >= 120
    assert {"one", "two"} <= seen.phases.keys()
    assert all(phase.live and phase.loaded for phase in seen.phases.values())
    assert cluster.get("airport:JFK") == DATA[b"airport:JFK"]


def test_traffic_notices_wrong_replies_and_versions_that_go_back(cluster: RedisCluster, port: int) -> None:
    older, newer = b"older", b"newer"
    cluster.set("airport:JFK", newer)
    with Traffic(HOST, port, {b"airport:JFK": (None, older, newer)}, seed=1) as traffic:
        traffic.measure("newer", 40)
        cluster.set("airport:JFK", older)
        traffic.measure("older", 40)
        cluster.set("airport:JFK", b"neither")
        traffic.measure("neither", 40)
        cluster.set(live_key(0), b"lost")
        seen = traffic.finish()
    assert any("went back to version 1 after 2" in words for words in seen.failures)
    assert any("which no version says" in words for words in seen.failures)
