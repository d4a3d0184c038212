"""Spark in the test's own process, at local[2], on a metastore and an S3 of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from pipeline.stack.metastore import Metastore
from tests.support.hive import spark_conf
from tests.support.s3 import S3


@contextmanager
def local_spark(metastore: Metastore, s3: S3, master: str = "local[2]", **more: str) -> Iterator[SparkSession]:
    """A session, stopped at the end; `more` are settings with `_` for `.`.

    The JVM outlives a session, with the environment of the first one; so Python's workers get the S3 of theirs as a setting.
    """
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf: dict[str, bool | float | int | str | None] = {
        **spark_conf(metastore),
        **{f"spark.executorEnv.{name}": value for name, value in s3.environment.items()},
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    spark = SparkSession.builder.master(master).config(map=conf).enableHiveSupport().getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()
