"""The Hive metastore with a real Spark as its client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.stack.metastore import Metastore
from pipeline.stack.ports import free_ports
from pipeline.stack.processes import MemberStartError, kill, stop
from tests.support.hive import hive_metastore, spark_conf
from tests.support.processes import below, beyond_loopback, listeners

SPARK_S_MAX = 180
SESSION = """
import json, sys
from pyspark.sql import SparkSession
conf, statements = json.loads(sys.argv[1])
builder = SparkSession.builder.master("local[1]").config("spark.sql.shuffle.partitions", 1)
for name, value in conf.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
rows = [spark.sql(statement).collect() for statement in statements]
print(json.dumps([[list(row) for row in one] for one in rows]))
spark.stop()
"""
CREATE = (
    "CREATE DATABASE features",
    "CREATE TABLE features.delays (flight STRING, delay DOUBLE) PARTITIONED BY (month INT) STORED AS ORC",
    "INSERT INTO features.delays PARTITION (month = 1) VALUES ('AA1', 3.5), ('UA7', NULL)",
    "INSERT INTO features.delays PARTITION (month = 2) VALUES ('AA1', -4)",
    "CREATE TABLE features.seats (tail STRING, seats INT, month INT) USING parquet PARTITIONED BY (month)",
    "INSERT INTO features.seats VALUES ('N14228', 149, 1), ('N24211', 149, 2)",
)
READ = (
    "SHOW TABLES IN features",
    "SHOW PARTITIONS features.delays",
    "SELECT flight, delay, month FROM features.delays ORDER BY month, flight",
    "SELECT tail, seats FROM features.seats WHERE month = 2",
)


@pytest.fixture(scope="module")
def metastore() -> Iterator[Metastore]:
    with hive_metastore() as running:
        yield running


def run_session(metastore: Metastore, statements: tuple[str, ...], folder: Path) -> list[Any]:
    """Rows by statement, from a Spark of its own."""
    command = [sys.executable, "-c", SESSION, json.dumps([spark_conf(metastore), statements])]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SPARK_S_MAX, check=False)
    assert done.returncode == 0, done.stderr
    answer: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.full
def test_one_spark_creates_tables_and_another_reads_them(metastore: Metastore, tmp_path: Path) -> None:
    assert beyond_loopback(listeners(below(metastore.folder))) == {}
    run_session(metastore, CREATE, tmp_path)
    tables, partitions, delays, seats = run_session(metastore, READ, tmp_path)
    assert sorted(row[1] for row in tables) == ["delays", "seats"]
    assert partitions == [["month=1"], ["month=2"]]
    assert delays == [["AA1", 3.5, 1], ["UA7", None, 1], ["AA1", -4.0, 2]]
    assert seats == [["N24211", 149]]
    assert list(metastore.warehouse.rglob("*.orc"))  # the data lies in the warehouse of the stack
    assert {path.name for path in tmp_path.iterdir()} <= {"artifacts"}  # and nowhere else
    assert beyond_loopback(listeners(below(metastore.folder))) == {}


def test_a_second_one_on_the_same_folder_ends_with_its_reason(metastore: Metastore, tmp_path: Path) -> None:
    second = Metastore(metastore.folder, free_ports(1)[0]).program(tmp_path / "log")
    running = second.start()
    try:
        with pytest.raises(MemberStartError, match=r"(?s)metastore ended while it started.*Another instance of Derby"):
            second.await_ready(running)
    finally:
        kill([running])


def test_its_end_takes_java_along(tmp_path: Path) -> None:
    metastore = Metastore(tmp_path / "metastore", free_ports(1)[0])
    program = metastore.program(tmp_path / "log")
    running = program.start()
    try:
        program.await_ready(running)
        assert len(running.family()) == 2
    finally:
        stop([running])
    assert below(metastore.folder) == []
    assert (tmp_path / "log").read_text() == ""
