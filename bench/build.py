"""The build job on a generated table, beside the sort that Spark needs anyway: all in one run, at local[2].

The floor is relative: the same encoded rows, placed and sorted by Spark into its noop sink, are 1. Times are of whole Spark jobs on a warm
session. Memory is the largest that one Python worker reached, as the kernel tells it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from pyspark.sql import SparkSession

from bench.harness import Result, finish
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.store import ObjectStore
from tests.support.hive import SPARK_LOOPBACK
from tests.support.memory import WorkerMemory
from tests.support.s3 import s3_store
from udtf.build import build_version, plan_build, shuffled, write
from udtf.job import SPARK_CONF

ROWS = 4_000_000
SCALES = (1_000_000, 2_000_000, 8_000_000)
SKEW_ROWS = 1_000_000
RUNS = 3
VERSION = "2026-01-01"


class LocalDisk:
    """In the place of the object store: the verified file stays where it was written."""

    def __init__(self, _: str) -> None:
        pass

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Nothing is left to do."""


def table(spark: SparkSession, rows: int) -> str:
    """A Hive table of five columns: key, two strings, int, double; made once."""
    name = f"bench.rows_{rows}"
    columns = (
        "concat('user', id) AS id",
        "concat('name ', hash(id)) AS name",
        "concat('city ', id % 9973) AS city",
        "cast(id % 97 AS int) AS age",
    )
    spark.range(rows).selectExpr(*columns, "id / 7 AS spent").write.format("parquet").mode("ignore").saveAsTable(name)
    return name


def spec_of(name: str) -> DatasetSpec:
    """The spec of such a table."""
    document = {"dataset": "bench", "source": {"table": name}, "key": "user:${id}", "type": "hash", "mode": "replace"}
    return parse_spec(document, "the benchmark's spec")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = perf_counter()
    work()
    return perf_counter() - begin


def steps(spark: SparkSession, name: str, fresh_store: Callable[[], ObjectStore]) -> tuple[Callable[[], object], ...]:
    """Sort to noop; to verified local files; to the manifest on S3."""
    spec = spec_of(name)

    plan = plan_build(spark, spec, VERSION, "", 0)
    local = replace(plan, task=replace(plan.task, open_store=LocalDisk))
    return (
        lambda: shuffled(plan.source, plan.encoder, plan.task.placement).write.format("noop").mode("overwrite").save(),
        lambda: write(local),
        lambda: build_version(spark, spec, VERSION, fresh_store()),
    )


def main() -> None:
    """The benchmark."""
    with TemporaryDirectory(prefix="redkv-bench-") as folder, s3_store() as s3:
        spark = _session(Path(folder))
        spark.sql("CREATE DATABASE bench")
        fresh: Callable[[], ObjectStore] = lambda: s3.fresh().store  # noqa: E731 -- a name for a thunk
        sort, local, whole = steps(spark, table(spark, ROWS), fresh)
        seconds(sort)
        with WorkerMemory() as memory:
            rounds = [(seconds(sort), seconds(local), seconds(whole)) for _ in range(RUNS)]
        results = [
            Result("to verified local SSTs / the sort", "ratio", tuple(b / a for a, b, _ in rounds), 1.5, less_is_better=True),
            Result("to the manifest on S3 / the sort", "ratio", tuple(c / a for a, _, c in rounds), 2.0, less_is_better=True),
            Result("the sort", "rows/s", tuple(ROWS / a for a, _, _ in rounds)),
            Result("to verified local SSTs", "rows/s", tuple(ROWS / b for _, b, _ in rounds)),
            Result("to the manifest on S3", "rows/s", tuple(ROWS / c for _, _, c in rounds)),
            Result(f"a Python worker's peak, {ROWS:,} rows", "MiB", (memory.peak_mib,)),
            *(scaled(spark, rows, fresh) for rows in SCALES),
            *skewed(spark),
        ]
        spark.stop()
    finish("build", results)


def skewed(spark: SparkSession) -> list[Result]:
    """The entries of the task that has most, over the mean, for keys that lie as unevenly as keys do."""
    flat = table(spark, SKEW_ROWS)
    zipf = "bench.zipf"
    columns = ("int(pow(rand(7), -1.25)) AS rank", "id", "id % 977 / 4.0 AS points")  # the first key has two fifths of the rows
    spark.range(SKEW_ROWS).selectExpr(*columns).write.format("parquet").saveAsTable(zipf)
    zset = {"type": "zset", "zset": {"member": "m${id}", "score": "points"}}
    return [
        spread(spark, "one hash tag", flat, {"key": "{bench}${id}", "type": "hash"}),
        spread(spark, "16 prefixes", flat, {"key": "{bench:${shard(16)}}${id}", "type": "hash"}),
        spread(spark, "a Zipf-distributed zset", zipf, {"key": "bench:${rank}", **zset}),
    ]


def spread(spark: SparkSession, what: str, source: str, shape: dict[str, Any]) -> Result:
    """One of them."""
    document = {"dataset": "bench", "source": {"table": source}, "mode": "replace", **shape}
    plan = plan_build(spark, parse_spec(document, "the benchmark's spec"), VERSION, "", 0)
    entries: Counter[str] = Counter()
    for one in write(replace(plan, task=replace(plan.task, open_store=LocalDisk))):
        if one.file:
            entries[one.file.object_key.rpartition("/")[2].partition("-")[0]] += one.file.entries
    mean = entries.total() / plan.task.placement.tasks
    metric = f"the fullest of {plan.task.placement.tasks} tasks / the mean, {what}"
    return Result(metric, "ratio", (max(entries.values()) / mean,), 2.0, less_is_better=True)


def scaled(spark: SparkSession, rows: int, fresh: Callable[[], ObjectStore]) -> Result:
    """Time per row at another size."""
    *_, whole = steps(spark, table(spark, rows), fresh)
    return Result(f"to the manifest on S3, {rows:,} rows", "us/row", tuple(seconds(whole) / rows * 1e6 for _ in range(RUNS)))


def _session(folder: Path) -> SparkSession:
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    derby = f"jdbc:derby:;databaseName={folder}/metastore;create=true"
    conf: dict[str, bool | float | int | str | None] = {
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.hadoop.javax.jdo.option.ConnectionURL": derby,
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": f"{folder}/local",
        "spark.driver.memory": "4g",
    }
    conf |= SPARK_LOOPBACK
    conf |= SPARK_CONF
    builder = SparkSession.builder.master("local[2]").config(map=conf)
    return builder.enableHiveSupport().getOrCreate()


if __name__ == "__main__":
    main()
