"""One shard beside redis-server 7.0 (in memory, no persistence), in the same run: requests per second, as ratios.

What is asked are keys of `replace` versions that the build job and a sidecar brought here, and live keys for SET; Redis got the shard's own
replies as its data. Both servers run on one core, one of them idle while the other is measured; what asks them has another core to itself.
A round measures Redis, then the shard; the ratio is of one round, so that a neighbour who slows the machine down slows both. Floors are
ratios that count as working, aims are what is worth working for. CPU time per request is printed beside.

- `fits`: the data fits the shard's block cache, and was read once.
- `large`: each cache of the shard holds at most a quarter of the data. Its files are read once before, so that the page cache of the system
  holds as much of them as it likes to; how much came from the disk all the same is printed.
- `zipf`: the large data, its keys chosen by a Zipf distribution; only printed. The generator's own pace limits both servers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import psutil
import redis

from bench.harness import RUNS, Result, finish
from bench.serving.copying import copy, warm
from bench.serving.data import STRING_BYTES, Dataset, load
from bench.serving.loads import RANDOM, Zipf, even
from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.shards import ShardProcess, running_shards

STRING, HASH = Dataset("string", "string", 100_000), Dataset("hash", "hash", 50_000)
LARGE_STRING, LARGE_HASH = Dataset("large_string", "string", 1_000_000), Dataset("large_hash", "hash", 1_000_000)
DATASETS = [STRING, HASH, LARGE_STRING, LARGE_HASH]
LIVE_KEYS = 100_000

FITTING = {"block_cache_bytes": 256 << 20}  # and a hot cache of its default size
SMALL = {"block_cache_bytes": 24 << 20, "hot_cache_bytes": 24 << 20}
CACHES_PER_DATA_MIN = 4

RUN_S = 1.5  # of one server in one round
READ_BYTES = 1 << 20  # of a file at a time
LOOK_REQUESTS = 20_000  # they say how many requests a run takes, and warm both servers up
PIPELINES = (1, 16)
CACHES = ("block_cache", "hot_cache")  # as INFO names them


@dataclass(frozen=True, slots=True)
class Workload:
    """A command on random keys; floors and aims by pipeline depth."""

    name: str
    words: tuple[str, ...]
    keys: int
    floors: tuple[float | None, float | None] = (None, None)
    aims: tuple[float | None, float | None] = (None, None)


def _on(dataset: Dataset, name: str, command: str, *more: str, **bounds: tuple[float | None, float | None]) -> Workload:
    return Workload(name, (command, f"{dataset.prefix}{RANDOM}", *more), dataset.keys, **bounds)


FITS = (
    _on(STRING, "GET 100 B, fits", "GET", floors=(0.50, 0.25), aims=(0.8, 0.45)),
    Workload("SET 100 B, live", ("SET", f"live:{RANDOM}", "x" * STRING_BYTES), LIVE_KEYS, (0.50, 0.17), (0.7, 0.25)),
    _on(HASH, "HGETALL of 50, fits", "HGETALL", floors=(0.75, 0.95), aims=(1.0, 1.5)),
    _on(HASH, "HMGET 5 of 50, fits", "HMGET", "f03", "f11", "f19", "f27", "f41", floors=(0.50, 0.25), aims=(0.7, 0.4)),
)
LARGE = (
    _on(LARGE_STRING, "GET 100 B, large", "GET", floors=(0.35, 0.15)),
    _on(LARGE_HASH, "HGETALL of 50, large", "HGETALL", floors=(0.45, 0.45)),
)
ZIPF = (_on(LARGE_STRING, "GET 100 B, zipf", "GET"), _on(LARGE_HASH, "HGETALL of 50, zipf", "HGETALL"))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Puts this thread, and what it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two, by port and process."""

    port: int
    process: psutil.Process

    @classmethod
    def at(cls, port: int) -> Self:
        """Which process listens there, it says itself."""
        with redis.Redis(port=port) as client:
            return cls(port, psutil.Process(int(client.info("server")["process_id"])))

    def measured(self, ask: Callable[[int], float], requests: int) -> Measured:
        """Ask so many requests of it."""
        cpu_s, disk_bytes = self._cpu_s(), self.process.io_counters().read_bytes
        pace = ask(self.port)
        read_bytes = self.process.io_counters().read_bytes - disk_bytes
        return Measured(pace, (self._cpu_s() - cpu_s) / requests * 1e6, read_bytes / requests)

    def _cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second; for one, the server's CPU time, which a busy neighbour changes least, and what it had the disk read."""

    pace: float
    cpu_us: float
    disk_bytes: float


def evenly(servers: tuple[Server, Server], workload: Workload) -> Iterator[Result]:
    """Keys chosen by redis-benchmark, all as often."""
    for pipeline in PIPELINES:

        def ask(port: int, requests: int, pipeline: int = pipeline) -> float:
            return even(port, workload.words, workload.keys, pipeline, requests)

        counts = [int(ask(server.port, LOOK_REQUESTS) * RUN_S) for server in servers]
        before = cache_counters(servers[1].port)
        rounds = [
            [server.measured(partial(ask, requests=count), count) for server, count in zip(servers, counts, strict=True)]
            for _ in range(RUNS)
        ]
        yield from results(workload, pipeline, rounds, before, cache_counters(servers[1].port))


def unevenly(servers: tuple[Server, Server], workload: Workload, reply_bytes: int) -> Iterator[Result]:
    """Keys chosen by a Zipf distribution, the same ones for both servers, others in every round."""
    for pipeline in PIPELINES:
        zipf = Zipf(workload.words, workload.keys, pipeline, reply_bytes)
        look = zipf.prepare(LOOK_REQUESTS)
        requests = int(min(zipf.run(server.port, look) for server in servers) * RUN_S)
        before = cache_counters(servers[1].port)
        rounds = []
        for _ in range(RUNS):
            prepared = zipf.prepare(requests)
            rounds.append([server.measured(partial(zipf.run, prepared=prepared), requests) for server in servers])
        yield from results(workload, pipeline, rounds, before, cache_counters(servers[1].port))


def results(
    workload: Workload, pipeline: int, rounds: list[list[Measured]], before: dict[str, int], after: dict[str, int]
) -> Iterator[Result]:
    """What is told of a workload: the ratio, both servers' pace and work, what the caches held."""
    name = f"{workload.name}, P={pipeline}"
    place = PIPELINES.index(pipeline)
    ratios = tuple(ours.pace / theirs.pace for theirs, ours in rounds)
    yield Result(f"{name}: shard / Redis", "ratio", ratios, workload.floors[place], aim=workload.aims[place])
    for server, who in enumerate(("Redis", "shard")):
        yield Result(f"{name}: {who}", "requests/s", tuple(one[server].pace for one in rounds))
        yield Result(f"{name}: {who}'s CPU time", "us/request", tuple(one[server].cpu_us for one in rounds))
    disk_bytes = tuple(one[1].disk_bytes for one in rounds)
    if any(disk_bytes):
        yield Result(f"{name}: shard reads from the disk", "bytes/request", disk_bytes)
    for cache in CACHES:
        hits, misses = (after[f"{cache}_{what}"] - before[f"{cache}_{what}"] for what in ("hits", "misses"))
        if hits + misses:
            yield Result(f"{name}: hits of the {cache.replace('_', ' ')}", "%", (100 * hits / (hits + misses),))


def cache_counters(port: int) -> dict[str, int]:
    """Hits and misses of the shard's caches since its start."""
    with redis.Redis(port=port) as client:
        told = client.info("caches")
    return {field: int(told[field]) for cache in CACHES for field in (f"{cache}_hits", f"{cache}_misses")}


def measured(folder: Path, shard: ShardProcess, servers: int, asking: int) -> Iterator[Result]:
    """All workloads."""
    with on_core(servers), running_redis(folder, cluster=False) as redis_port:
        reply_bytes = {one.name: copy(one, shard.port, redis_port) for one in DATASETS}
        restart(shard, FITTING)
        both = (Server.at(redis_port), Server.at(shard.port))
        for dataset in (STRING, HASH):
            warm(dataset, shard.port, reply_bytes[dataset.name])
        with on_core(asking):
            for workload in FITS:
                yield from evenly(both, workload)
        restart(shard, SMALL)
        read_files(shard.paths.versions)
        both = (both[0], Server.at(shard.port))
        with on_core(asking):
            for workload in LARGE:
                yield from evenly(both, workload)
            for workload, dataset in zip(ZIPF, (LARGE_STRING, LARGE_HASH), strict=True):
                yield from unevenly(both, workload, reply_bytes[dataset.name])


def read_files(folder: Path) -> None:
    """Bring the files of all versions into the page cache."""
    for path in sorted(folder.rglob("*.sst")):
        with path.open("rb") as file:
            while file.read(READ_BYTES):
                pass


def restart(shard: ShardProcess, options: Mapping[str, int]) -> None:
    """The shard with other caches, which are empty then, and with its metrics."""
    shard.stop()
    shard.options = {"metrics_port": free_port(), **options}
    shard.start()


def main() -> None:
    """The benchmark."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench-serve needs two cores: one for the servers, one for what asks them")
    for dataset in (LARGE_STRING, LARGE_HASH):
        assert dataset.least_bytes >= CACHES_PER_DATA_MIN * max(SMALL.values())
    with TemporaryDirectory(prefix="redkv-bench-") as folder, running_shards(Path(folder) / "shards") as [shard]:
        load(Path(folder), shard, DATASETS)
        found = list(measured(Path(folder), shard, cores[0], cores[1]))
    finish("serve", found)


if __name__ == "__main__":
    main()
