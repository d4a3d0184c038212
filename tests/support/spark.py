"""Spark in the test's own process, on a metastore and an S3 of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import SparkSession

from pipeline.stack.metastore import Metastore
from tests.support.hive import spark_conf
from tests.support.s3 import S3


@dataclass(frozen=True, slots=True)
class SparkStack:
    """A running Spark, and what it reads from and writes to."""

    spark: SparkSession
    s3: S3
    metastore: Metastore

    def session(self, database: str, **settings: str) -> SparkSession:
        """A session with settings of its own (`_` for `.`), and a database."""
        session = self.spark.newSession()
        for name, value in settings.items():
            session.conf.set(name.replace("_", "."), value)
        session.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
        return session


@contextmanager
def local_spark(metastore: Metastore, s3: S3) -> Iterator[SparkSession]:
    """A session at local[2] that gives a task a second chance, stopped at the end.

    The JVM outlives a session, with the environment of the first one; so Python's workers get the S3 of theirs as a setting.
    """
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf: dict[str, bool | float | int | str | None] = {
        **spark_conf(metastore),
        "spark.hadoop.hive.downloaded.resources.dir": str(metastore.folder / "resources"),  # else Hive leaves one in /tmp
        **{f"spark.executorEnv.{name}": value for name, value in s3.environment.items()},
        "spark.ui.showConsoleProgress": "false",
    }
    spark = SparkSession.builder.master("local[2,2]").config(map=conf).enableHiveSupport().getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()
