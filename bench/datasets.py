"""Many datasets on one shard: 200 of them with two versions each. How long it takes to start, what memory it takes, what a GET costs.

Each dataset has an active version and one that is kept as the way back. Reads are of random keys over all datasets, by a client on one
connection, one after the other; latencies are the shard's own.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench._latencies import Latencies, p99_us
from bench.harness import Result, finish
from pipeline.format.values import encode_string
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

DATASETS = 200
KEYS = 500  # per version
VALUE_BYTES = 100
READS = 20_000
RUNS = 3
VERSIONS = ("2026-01-01", "2026-01-02")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """One start of the shard."""

    start_s: float
    resident_mib: float
    opened_mib: float
    threads: int
    median_us: float
    p99_us: float


def fill(shard: ShardProcess, first: int, last: int) -> None:
    """Datasets by their numbers, the second version of each active."""
    source = random.Random(first)
    with RawClient(shard.admin_socket) as admin:
        for number in range(first, last):
            name = f"d{number}"
            for version in VERSIONS:
                rows = {f"{name}:{key}".encode(): encode_string(source.randbytes(VALUE_BYTES)) for key in range(KEYS)}
                publish_version(shard.paths, name, version, rows)
            assert admin.call("REDKV", "REGISTER", name, f"{name}:") == b"+OK\r\n"
            assert admin.call("REDKV", "ACTIVATE", name, VERSIONS[1]) == b"+OK\r\n"


def started(shard: ShardProcess, datasets: int) -> Seen:
    """Start it again; what it takes, and how it reads."""
    shard.stop()
    began = time.perf_counter()
    shard.start()
    start_s = time.perf_counter() - began
    assert shard.process is not None
    process = psutil.Process(shard.process.pid)
    resident = process.memory_info().rss / MIB
    source = random.Random(1)
    seconds = []
    with Latencies([shard.admin_socket], ["get"]) as latencies, RawClient(shard.port) as client:
        before = latencies.look()
        for _ in range(READS):
            key = f"d{source.randrange(datasets)}:{source.randrange(KEYS)}" if datasets else "nothing"
            at = time.perf_counter()
            reply = client.call("GET", key)
            seconds.append(time.perf_counter() - at)
            assert reply.startswith(b"$100" if datasets else b"$-1")
        after = latencies.look()
    with RawClient(shard.admin_socket) as admin:
        for number in range(datasets):
            assert admin.call("REDKV", "OPEN", f"d{number}", VERSIONS[0]) == b"+OK\r\n"
    opened = process.memory_info().rss / MIB
    return Seen(start_s, resident, opened, process.num_threads(), sorted(seconds)[READS // 2] * 1e6, p99_us(before, after))


def results_of(what: str, runs: list[Seen]) -> list[Result]:
    """The figures of some starts."""
    return [
        Result(f"{what}: start until it answers", "s", tuple(one.start_s for one in runs)),
        Result(f"{what}: memory after the start", "MiB", tuple(one.resident_mib for one in runs)),
        Result(f"{what}: memory, read, and all versions opened", "MiB", tuple(one.opened_mib for one in runs)),
        Result(f"{what}: threads", "threads", tuple(float(one.threads) for one in runs)),
        Result(f"{what}: GET, median as the client sees it", "us", tuple(one.median_us for one in runs)),
        Result(f"{what}: GET, p99 in the shard", "us", tuple(one.p99_us for one in runs)),
    ]


def main() -> None:
    """The benchmark."""
    results = []
    with TemporaryDirectory(prefix="redkv-bench-") as folder, running_shards(Path(folder), 1) as [shard]:
        there = 0
        for datasets in (0, 1, DATASETS):
            fill(shard, there, datasets)
            there = datasets
            results += results_of(f"{datasets} datasets", [started(shard, datasets) for _ in range(RUNS)])
    finish("datasets", results)


if __name__ == "__main__":
    main()
