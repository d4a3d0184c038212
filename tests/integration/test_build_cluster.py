"""The build job on a Spark standalone cluster, from the archive that `make dist` makes, with an executor killed in mid-job."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.load.build import run_build
from pipeline.load.garbage import find_garbage
from pipeline.settings import ClusterSettings
from pipeline.spec import parse_spec
from pipeline.stack.metastore import Metastore
from pipeline.store import ObjectStore
from tests.support.hive import SPARK_LOOPBACK
from tests.support.s3 import S3
from tests.support.spark import SparkStack
from tests.support.spark_cluster import SparkCluster, spark_cluster
from udtf.build import build_version

ROOT = Path(__file__).parents[2]
VERSION = "2026-11-22"
ROWS = 120_000
SPEC = {
    "dataset": "points",
    "source": {"table": "skewed.points"},
    "key": "points:${grp}",
    "type": "zset",
    "zset": {"member": "m${id}", "score": "points"},
    "mode": "replace",
}


@dataclass(frozen=True)
class World:
    s3: S3
    metastore: Metastore
    cluster: SparkCluster
    archive: Path
    spec: Path
    undisturbed: Manifest

    def build(self, log: Path) -> tuple[Manifest, ObjectStore]:
        """One build in an empty root of the store, and that."""
        s3 = self.s3.fresh()
        conf = {
            **SPARK_LOOPBACK,
            "spark.sql.warehouse.dir": str(self.metastore.warehouse),
            "spark.archives": f"{self.archive}#redkv",
            "spark.executorEnv.PYTHONPATH": "redkv",
            "spark.executor.cores": "1",
            "spark.executor.memory": "1g",
            "spark.speculation": "true",  # whoever is slower than the median runs twice as soon as a core is free
            "spark.speculation.quantile": "0.1",
            "spark.speculation.multiplier": "1.0",
            "spark.speculation.interval": "10ms",
            "spark.speculation.minTaskRuntime": "1ms",
            "spark.pyspark.driver.python": sys.executable,
            "spark.pyspark.python": f"{sys.base_prefix}/bin/python3",
            **{f"spark.executorEnv.{name}": value for name, value in s3.environment.items()},
        }
        settings = ClusterSettings(
            store=s3.url, cluster="c", metastore_uris=self.metastore.uri, spark_master=self.cluster.url, spark_conf=conf
        )
        run_build(settings, self.spec, VERSION, log)
        key = manifest_key("points", VERSION)
        return Manifest.from_json(s3.store.get(key).data, key), s3.store


@pytest.fixture(scope="module")
def world(spark_stack: SparkStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["make", "--directory", str(ROOT), "dist", f"DIST={folder}"], check=True, capture_output=True)
    spec = folder / "points.yaml"
    spec.write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    undisturbed = _made_and_built(spark_stack)
    with spark_cluster(workers=2) as cluster:
        yield World(spark_stack.s3, spark_stack.metastore, cluster, folder / "redkv-executor.tar.gz", spec, undisturbed)


def _made_and_built(stack: SparkStack) -> Manifest:
    """A skewed table, of which one key has two thirds of the rows; and its version, built by Spark in this process."""
    spark = stack.session("skewed")
    rows = spark.range(ROWS).selectExpr("int(pow(id % 1000 / 1000.0, 20) * 2000) AS grp", "id", "id % 977 / 4.0 AS points")
    rows.write.format("parquet").saveAsTable("skewed.points")
    return build_version(spark, parse_spec(SPEC, "a test's spec"), VERSION, stack.s3.fresh().store).manifest


@pytest.mark.full
def test_an_executor_killed_in_mid_job_changes_nothing(world: World, tmp_path: Path) -> None:
    quiet = world.undisturbed
    assert quiet.totals.source_rows == quiet.totals.stored_rows == ROWS
    assert quiet.totals.entries > ROWS  # a split key: its members and its ranks

    log = tmp_path / "killed.log"
    killed: list[psutil.Process] = []
    over = threading.Event()

    def kill_one() -> None:
        """As soon as two executors work on what follows the shuffle, one of them goes."""
        while not over.wait(0.05):
            executors = world.cluster.executors()
            if len(executors) == 2 and any(_has_written(one) for one in executors):
                executors[0].kill()
                killed.append(executors[0])
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        disturbed, store = world.build(log)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert "ExecutorLostFailure" in log.read_text(encoding="utf-8") or "Lost executor" in log.read_text(encoding="utf-8")
    assert disturbed.totals.model_copy(update={"bytes": 0}) == quiet.totals.model_copy(update={"bytes": 0})
    assert _content(disturbed) == _content(quiet)
    garbage = {one.key for build in find_garbage(store, time.time(), age_min_s=0) for one in build.objects}
    named = {file.object_key for file in disturbed.files}
    assert garbage | named == {one.key for one in store.list("") if one.key.endswith(".sst")}
    assert not garbage & named


def _has_written(executor: psutil.Process) -> bool:
    """Whether one of its Python workers holds an SST file open."""
    try:
        return any(file.path.endswith(".sst") for worker in executor.children(recursive=True) for file in worker.open_files())
    except psutil.NoSuchProcess:
        return False


def _content(manifest: Manifest) -> list[tuple[bytes, bytes, str]]:
    return [(file.smallest, file.largest, file.content_digest) for file in manifest.files]
