"""Existing clients, unchanged, against shards: one scenario (scenario.json) through all of them; and against Redis, which proves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from pipeline.format.values import encode_hash, encode_string, encode_zset
from tests.clients import cli, glide_py, node_js, redis_py
from tests.clients.scenario import LOADED_KEYS, READ_ONLY_SECTION, Verb, check, steps
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient
from tests.support.shards import running_shards
from tests.support.versions import publish_version

Run = Callable[[list[int], list[Verb]], list[Any]]

SHARDS = 3
VERSION = "2026-11-22"
CLUSTER_CLIENTS: dict[str, Run] = {
    "redis-cli": cli.run,
    "redis-py-2": lambda ports, verbs: redis_py.run(ports[0], 2, verbs, cluster=True),
    "redis-py-3": lambda ports, verbs: redis_py.run(ports[0], 3, verbs, cluster=True),
    "valkey-glide-2": lambda ports, verbs: glide_py.run(ports[0], 2, verbs, cluster=True),
    "valkey-glide-3": lambda ports, verbs: glide_py.run(ports[0], 3, verbs, cluster=True),
    "ioredis": lambda ports, verbs: node_js.run("ioredis", ports[0], 2, verbs, cluster=True),
    "node-redis-2": lambda ports, verbs: node_js.run("node-redis", ports[0], 2, verbs, cluster=True),
    "node-redis-3": lambda ports, verbs: node_js.run("node-redis", ports[0], 3, verbs, cluster=True),
}
PLAIN_CLIENTS: dict[str, Run] = {
    "redis-py-2": lambda ports, verbs: redis_py.run(ports[0], 2, verbs, cluster=False),
    "redis-py-3": lambda ports, verbs: redis_py.run(ports[0], 3, verbs, cluster=False),
    "valkey-glide-2": lambda ports, verbs: glide_py.run(ports[0], 2, verbs, cluster=False),
    "valkey-glide-3": lambda ports, verbs: glide_py.run(ports[0], 3, verbs, cluster=False),
    "ioredis": lambda ports, verbs: node_js.run("ioredis", ports[0], 2, verbs, cluster=False),
    "node-redis-2": lambda ports, verbs: node_js.run("node-redis", ports[0], 2, verbs, cluster=False),
    "node-redis-3": lambda ports, verbs: node_js.run("node-redis", ports[0], 3, verbs, cluster=False),
}
PLANES = {f"plane:{number}": {"tail": f"N{number}", "seats": f"1{number}"} for number in range(LOADED_KEYS)}
CITIES = {f"city:{number}": f"town of {number}" for number in range(LOADED_KEYS)}
DELAYS = {f"delay:{number}": {"early": -1.5, f"late {number}": 20.0} for number in range(LOADED_KEYS)}


LOADED = {
    "plane": {key: encode_hash([(field.encode(), value.encode()) for field, value in pairs.items()]) for key, pairs in PLANES.items()},
    "city": {key: encode_string(text.encode()) for key, text in CITIES.items()},
    "delay": {key: encode_zset([(member.encode(), score) for member, score in scores.items()]) for key, scores in DELAYS.items()},
}


@contextmanager
def serving(root: Path, count: int, *, cluster: bool = True) -> Iterator[list[int]]:
    """The ports of shards with versions of three datasets; not `cluster`: a standalone one."""
    with running_shards(root, count, {"cluster_enabled": cluster}) as shards:
        for shard in shards:
            with RawClient(shard.admin_socket) as admin:
                for dataset, rows in LOADED.items():
                    publish_version(shard.paths, dataset, VERSION, {key.encode(): value for key, value in rows.items()})
                    assert admin.call("REDKV", "REGISTER", dataset, f"{dataset}:") == b"+OK\r\n"
                    assert admin.call("REDKV", "ACTIVATE", dataset, VERSION) == b"+OK\r\n"
        yield [shard.port for shard in shards]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with serving(tmp_path_factory.mktemp("c"), SHARDS) as ports:
        yield ports


@pytest.fixture(scope="module", params=[True, False], ids=["cluster of one", "standalone"])
def one_shard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with serving(tmp_path_factory.mktemp("c"), 1, cluster=request.param) as ports:
        yield ports


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        with redis.Redis(port=port) as client:
            for key, pairs in PLANES.items():
                client.hset(key, mapping=pairs)
            for key, text in CITIES.items():
                client.set(key, text)
            for key, scores in DELAYS.items():
                client.zadd(key, scores)
        yield [port]


@pytest.mark.parametrize("name", CLUSTER_CLIENTS)
def test_a_cluster_client_passes_the_scenario(cluster: list[int], name: str) -> None:
    asked = steps(f"{name}-cluster")
    check(asked, CLUSTER_CLIENTS[name](cluster, [step.do for step in asked]))


@pytest.mark.parametrize("name", PLAIN_CLIENTS)
def test_a_plain_client_passes_the_scenario(one_shard: list[int], name: str) -> None:
    asked = steps(f"{name}-plain")
    check(asked, PLAIN_CLIENTS[name](one_shard, [step.do for step in asked]))


@pytest.mark.parametrize(("kind", "name"), [*(("cluster", name) for name in CLUSTER_CLIENTS), *(("plain", name) for name in PLAIN_CLIENTS)])
def test_the_scenario_is_what_redis_does(real_redis: list[int], kind: str, name: str) -> None:
    asked = steps(f"{name}-{kind}", without=[READ_ONLY_SECTION])
    client = CLUSTER_CLIENTS[name] if kind == "cluster" else PLAIN_CLIENTS[name]
    check(asked, client(real_redis, [step.do for step in asked]))
