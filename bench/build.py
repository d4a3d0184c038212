"""The build job on a generated table, beside the sort that Spark needs anyway: all in one run, at local[2].

The floor is relative: the same encoded rows, placed and sorted by Spark into its noop sink, are 1; the sort is given its places, the job
takes its sample first, and its time counts. Times are of whole Spark jobs on a warm
session. Memory is the largest that one Python worker reached, as the kernel tells it: it holds one file until that is proven, so it grows
until a task fills a file (64 MiB), at about 4,000,000 rows, and no further. Sizes grow from one measurement to the next, as a worker that
stays seldom gives memory back.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
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
from udtf.build import build_version, plan_build, shuffled, unmeasured, write
from udtf.job import SPARK_CONF

ROWS = 4_000_000
SCALES = (1_000_000, 2_000_000, 8_000_000)
OFF_MEAN_MAX = 0.15  # of the time per row at each of these from their mean
PEAK_GROWTH_MAX = 1.1  # of a worker's memory from ROWS, where its files are full, to twice as many
SKEW_ROWS = 1_000_000
RUNS = 3
RUNS_COMPARED = 5
WARM_UPS = 3  # the JVM compiles what is hot: the third build of a session takes half of the first one's time, and no later one is faster
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

    sorting = plan_build(spark, spec, VERSION, "", 0)

    def sort() -> None:
        with unmeasured(sorting):  # as the job does
            shuffled(sorting.source, sorting.encoder, sorting.task.placement).write.format("noop").mode("overwrite").save()

    def local() -> None:
        plan = plan_build(spark, spec, VERSION, "", 0)
        write(replace(plan, task=replace(plan.task, open_store=LocalDisk)))

    return sort, local, lambda: build_version(spark, spec, VERSION, fresh_store())


def main() -> None:
    """The benchmark."""
    with TemporaryDirectory(prefix="redkv-bench-") as folder, s3_store() as s3:
        spark = session(Path(folder))
        spark.sql("CREATE DATABASE bench")
        fresh: Callable[[], ObjectStore] = lambda: s3.fresh().store  # noqa: E731 -- a name for a thunk
        for _ in range(WARM_UPS):
            seconds(steps(spark, table(spark, SCALES[0]), fresh)[-1])
        *smaller, largest = SCALES
        scales = [scaled(spark, rows, fresh) for rows in smaller]
        with WorkerMemory() as memory:
            compared = compare(spark, fresh)
        scales.append(scaled(spark, largest, fresh))
        results = [*compared, *scale_results(scales), *peaks(scales, memory.peak_mib), *skewed(spark)]
        spark.stop()
    finish("build", results)


def compare(spark: SparkSession, fresh: Callable[[], ObjectStore]) -> list[Result]:
    """The job's steps over the sort, round by round."""
    sort, local, whole = steps(spark, table(spark, ROWS), fresh)
    for step in (sort, local):  # both are compiled for this size, or the first round is the compiler's
        seconds(step)
    rounds = [(seconds(sort), seconds(local), seconds(whole)) for _ in range(RUNS_COMPARED)]
    return [
        Result("to verified local SSTs / the sort", "ratio", tuple(b / a for a, b, _ in rounds), 1.5, less_is_better=True),
        Result("to the manifest on S3 / the sort", "ratio", tuple(c / a for a, _, c in rounds), 2.0, less_is_better=True),
        Result("the sort", "rows/s", tuple(ROWS / a for a, _, _ in rounds)),
        Result("to verified local SSTs", "rows/s", tuple(ROWS / b for _, b, _ in rounds)),
        Result("to the manifest on S3", "rows/s", tuple(ROWS / c for _, _, c in rounds)),
    ]


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


@dataclass(frozen=True, slots=True)
class Scale:
    """Time per row to the manifest at one size, and the largest Python worker meanwhile."""

    rows: int
    us_per_row: tuple[float, ...]
    peak_mib: float


def scaled(spark: SparkSession, rows: int, fresh: Callable[[], ObjectStore]) -> Scale:
    """One size."""
    *_, whole = steps(spark, table(spark, rows), fresh)
    with WorkerMemory() as memory:
        times = tuple(seconds(whole) / rows * 1e6 for _ in range(RUNS))
    return Scale(rows, times, memory.peak_mib)


def scale_results(scales: list[Scale]) -> list[Result]:
    """Time per row at every size, and that it does not depend on it."""
    medians = [median(one.us_per_row) for one in scales]
    off = max(abs(one / mean(medians) - 1) for one in medians)
    return [
        *(Result(f"to the manifest on S3, {one.rows:,} rows", "us/row", one.us_per_row) for one in scales),
        Result("time per row, the size that is farthest from the mean", "ratio", (off,), OFF_MEAN_MAX, less_is_better=True),
    ]


def peaks(scales: list[Scale], peak_mib: float) -> list[Result]:
    """The same of a worker's memory; `peak_mib` is that of ROWS."""
    *smaller, largest = scales
    sizes = [(one.rows, one.peak_mib) for one in smaller] + [(ROWS, peak_mib), (largest.rows, largest.peak_mib)]
    return [
        *(Result(f"a Python worker's peak, {rows:,} rows", "MiB", (peak,)) for rows, peak in sizes),
        Result(
            f"that peak, {largest.rows:,} rows / {ROWS:,}", "ratio", (largest.peak_mib / peak_mib,), PEAK_GROWTH_MAX, less_is_better=True
        ),
    ]


def session(folder: Path) -> SparkSession:
    """Spark at local[2], its warehouse and a metastore of its own in `folder`."""
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    derby = f"jdbc:derby:;databaseName={folder}/metastore;create=true"
    conf: dict[str, bool | float | int | str | None] = {
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.hadoop.hive.downloaded.resources.dir": f"{folder}/resources",  # else Hive leaves one in /tmp
        "spark.hadoop.javax.jdo.option.ConnectionURL": derby,
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": f"{folder}/local",
        "spark.driver.memory": "4g",
        "spark.driver.extraJavaOptions": f"-Dderby.stream.error.file={folder}/derby.log",  # by default where one stands
    }
    conf |= SPARK_LOOPBACK
    conf |= SPARK_CONF
    builder = SparkSession.builder.master("local[2]").config(map=conf)
    return builder.enableHiveSupport().getOrCreate()


if __name__ == "__main__":
    main()
