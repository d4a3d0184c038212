"""A load through the whole pipeline, beside the same rows written by a client: rows per second, and CPU-seconds per million rows.

A million rows of five fields go from a Hive table through `redkv load` into three nodes of two shards, as a new version over the one
before. The same rows go through redis-py's pipelines, HSET by HSET, into the same shards under another prefix, and into redis-server. The
serving side is shards and sidecars (with their ingest processes), or redis-server, without what they take idle (of a load: while its build
runs, which none of them sees); "in all" adds what feeds it: the coordinator, Spark and S3, or the client.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pyspark.sql import SparkSession
from redis import Redis
from redis.cluster import RedisCluster

from bench._cpu import CpuCurve, TreeCpu, cpu_s
from bench.harness import Result, finish
from pipeline.settings import load_settings
from pipeline.stack.local import Stack
from pipeline.stack.members import S3
from tests.support.redis_server import running_redis

ROWS = 1_000_000
RUNS = 3
PIPELINE_ROWS = 1_000  # of redis-py at once: larger ones are no faster
LOAD_S_MAX = 500.0
IDLE_S = 10.0
SETTLE_S = 3.0  # after a load: an old version's files go
RATIO_MIN = 10.0  # of the serving side's CPU-seconds: what bulk loading is for
TABLE = "bench.rows"
MILLION = 1_000_000
Field = bytes | bytearray | memoryview | str | int | float
"""As redis-py types what it sends."""

COLUMNS = ("name", "city", "age", "spent", "visits")


@dataclass(frozen=True, slots=True)
class Run:
    """One of the measured runs: seconds, and CPU-seconds of the serving side and of all."""

    seconds: float
    serving_s: float
    all_s: float
    serving_wall_s: float = 0.0


def make_table(config: Path, rows: int) -> None:
    """The Hive table; the columns are those of `row`."""
    settings = load_settings(config)
    builder = SparkSession.builder.appName("bench").master("local[2]").enableHiveSupport()
    options: dict[str, bool | float | int | str | None] = {
        "spark.hadoop.hive.metastore.uris": settings.metastore_uris,
        "spark.ui.showConsoleProgress": "false",
        **settings.spark_conf,
    }
    spark = builder.config(map=options).getOrCreate()
    spark.sql("CREATE DATABASE IF NOT EXISTS bench")
    columns = (
        "id",
        "concat('name ', id * 2654435761 % 4294967296) AS name",
        "concat('city ', id % 9973) AS city",
        "cast(id % 97 AS int) AS age",
        "id % 100000 / 8 AS spent",
        "cast(id % 1009 AS int) AS visits",
    )
    spark.range(rows).selectExpr(*columns).write.format("parquet").saveAsTable(TABLE)
    spark.stop()


def row(number: int) -> dict[Field, Field]:
    """The same row, as a client writes it."""
    return {
        "name": f"name {number * 2654435761 % 4294967296}",
        "city": f"city {number % 9973}",
        "age": str(number % 97),
        "spent": str(number % 100000 / 8),
        "visits": str(number % 1009),
    }


@contextmanager
def stack(folder: Path, rows: int) -> Iterator[Stack]:
    """A local cluster with the table."""
    one = Stack(folder / "stack")
    try:
        one.start()
        process = get_context("spawn").Process(target=make_table, args=(one.settings_path, rows))
        process.start()
        process.join()
        assert process.exitcode == 0
        yield one
    finally:
        one.remove()


def serving_pids(cluster: Stack) -> list[int]:
    """Shards and sidecars."""
    return [running.pid for name, running in cluster.members.items() if name.startswith("node-")]


def load(cluster: Stack, spec: Path, version: str, rows: int) -> Run:
    """One version, from the table to its readers, and until the version before the last is gone."""
    feeding = [cluster.members[S3].pid]
    command = [sys.executable, "-m", "pipeline.cli", "--config", str(cluster.settings_path), "load", str(spec)]
    command += ["--version", version, "--output", "json"]
    with CpuCurve(serving_pids(cluster)) as serving:
        store, began = cpu_s(feeding), time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process, TreeCpu(process.pid) as fed:
            output, _ = process.communicate(timeout=LOAD_S_MAX)
        ended = time.perf_counter()
        time.sleep(SETTLE_S)
    assert process.returncode == 0
    report = json.loads(output)
    assert report["keys"] == rows
    steps = report["seconds"]
    wall_s = sum(steps[one] for one in ("stage", "ingest", "verify", "activate"))
    built = ended - wall_s - steps["retire"]
    idle = serving.between(began, built) / (built - began)  # of the very minute in which the load follows
    served_s = serving.between(built, ended + SETTLE_S) - idle * (ended + SETTLE_S - built)
    return Run(ended - began, served_s, served_s + fed.seconds + cpu_s(feeding) - store, wall_s)


def write(client: Redis | RedisCluster, serving: Sequence[int], idle: float, prefix: str, rows: int) -> Run:
    """All rows by the pipelines of redis-py; `serving` are the processes of the server, which take `idle` CPU-seconds a second anyway."""
    served, own = cpu_s(serving), time.process_time()
    began = time.perf_counter()
    for first in range(0, rows, PIPELINE_ROWS):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + PIPELINE_ROWS, rows)):
            pipeline.hset(f"{prefix}{number}", mapping=row(number))
        pipeline.execute()
    seconds = time.perf_counter() - began
    serving_s = cpu_s(serving) - served - idle * seconds
    return Run(seconds, serving_s, serving_s + time.process_time() - own)


def idle_cpu(pids: Sequence[int]) -> float:
    """CPU-seconds per second of processes that nobody asks anything."""
    before = cpu_s(pids)
    time.sleep(IDLE_S)
    return (cpu_s(pids) - before) / IDLE_S


def into_cluster(cluster: Stack, idle: float, runs: int, rows: int) -> list[Run]:
    """The rows as live keys of the same shards."""
    first = cluster.topology.shards[0]
    with RedisCluster(host=first.host, port=first.port) as client:
        return [write(client, serving_pids(cluster), idle, f"live{number}:", rows) for number in range(runs)]


def into_redis(folder: Path, runs: int, rows: int) -> list[Run]:
    """The rows in a redis-server, an empty one each time."""
    written = []
    for _ in range(runs):
        with running_redis(folder, cluster=False) as port, Redis(port=port) as client:
            pid = int(client.info("server")["process_id"])
            written.append(write(client, [pid], idle_cpu([pid]), "bench:", rows))
    return written


def results_of(what: str, runs: list[Run], rows: int) -> list[Result]:
    """The three figures of some runs."""
    per_million = rows / MILLION
    return [
        Result(f"{what}", "rows/s", tuple(rows / one.seconds for one in runs)),
        Result(f"{what}: serving side", "CPU-s/Mrow", tuple(one.serving_s / per_million for one in runs)),
        Result(f"{what}: in all", "CPU-s/Mrow", tuple(one.all_s / per_million for one in runs)),
    ]


def noise(runs: list[Run]) -> tuple[float, ...]:
    """The serving side's CPU-seconds of each run over those of the one before, the larger first."""
    pairs = [sorted((one.serving_s, other.serving_s)) for one, other in pairwise(runs)]
    return tuple(more / less for less, more in pairs) or (1.0,)


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description="A load beside a client's writes.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    rows, runs = arguments.rows, arguments.runs
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with TemporaryDirectory(prefix="redkv-bench-") as name:
        folder = Path(name)
        with stack(folder, rows) as cluster:
            spec = folder / "bench.yaml"
            document = {"dataset": "bench", "source": {"table": TABLE}, "key": "bench:${id}", "type": "hash", "mode": "replace"}
            spec.write_text(yaml.safe_dump({**document, "hash": {"columns": list(COLUMNS)}}), encoding="utf-8")
            load(cluster, spec, "2026-01-01", rows)  # the first one finds no version to replace, and cold caches
            loads = [load(cluster, spec, f"2026-01-{day:02d}", rows) for day in range(2, 2 + runs)]
            idle = idle_cpu(serving_pids(cluster))
            live = into_cluster(cluster, idle, runs, rows)
        written = into_redis(folder, runs, rows)
        times = [tuple(there.serving_s / here.serving_s for there, here in zip(other, loads, strict=True)) for other in (live, written)]
        results = [
            *results_of("redkv load, table to readers", loads, rows),
            Result("redkv load, from built to readers", "rows/s", tuple(rows / one.serving_wall_s for one in loads)),
            *results_of("redis-py into the same shards", live, rows),
            *results_of("redis-py into redis-server", written, rows),
            Result("shards and sidecars, idle", "CPU-s/s", (idle,)),
            *(
                Result(f"noise (A/A): one {what} over another", "ratio", noise(found))
                for what, found in (("load", loads), ("HSET run", live))
            ),
            Result("serving side: the same shards by HSET / redkv load", "ratio", times[0], RATIO_MIN),
            Result("serving side: redis-server / redkv load", "ratio", times[1]),
        ]
    finish("load", results)


if __name__ == "__main__":
    main()
