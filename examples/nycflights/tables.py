"""The Hive tables of the example, as a data team's own jobs would leave them: `python -m examples.nycflights.tables`.

Three tables in the database `nycflights`: flights (ORC, partitioned by month), planes (Parquet, partitioned by the day of the snapshot)
and airports (ORC). Columns are typed; `NA` becomes NULL. The cluster's settings say where metastore and Spark are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from examples.nycflights import data
from pipeline.settings import ClusterSettings, load_settings

DATABASE = "nycflights"
# Hours stay the text that they are in the file, e.g. 2013-01-01T10:00:00Z: they become parts of keys.
FLIGHTS = (
    "year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT, arr_delay INT, "
    "carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT, distance INT, hour INT, minute INT, "
    "time_hour STRING"
)
PLANES = "tailnum STRING, year INT, type STRING, manufacturer STRING, model STRING, engines INT, seats INT, speed INT, engine STRING"
AIRPORTS = "faa STRING, name STRING, lat DOUBLE, lon DOUBLE, alt INT, tz INT, dst STRING, tzone STRING"


def create(spark: SparkSession, folder: Path) -> None:
    """Create the tables from the CSV files in `folder`, anew if they exist."""
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    flights = _csv(spark, folder / data.FLIGHTS, FLIGHTS)
    _write(flights, "flights", FLIGHTS, "ORC", partition="month INT")
    _write(_csv(spark, folder / data.AIRPORTS, AIRPORTS), "airports", AIRPORTS, "ORC")
    days = [_csv(spark, folder / data.planes_file(day), PLANES).selectExpr("*", f"'{day}' AS ds") for day in data.DAYS]
    _write(days[0].unionByName(days[1]), "planes", f"{PLANES}, ds STRING", "PARQUET", partition="ds STRING")


def session(settings: ClusterSettings) -> SparkSession:
    """A Spark session on the cluster's Hive metastore."""
    builder = SparkSession.builder.appName("nycflights tables").master(settings.spark_master).enableHiveSupport()
    options: dict[str, Any] = {
        "spark.hadoop.hive.metastore.uris": settings.metastore_uris,
        "hive.exec.dynamic.partition.mode": "nonstrict",  # partitions come from the rows
        "spark.ui.showConsoleProgress": "false",
        **settings.spark_conf,
    }
    return builder.config(map=options).getOrCreate()


def _csv(spark: SparkSession, path: Path, schema: str) -> DataFrame:
    return spark.read.csv(f"file://{path.resolve()}", schema, header=True, nullValue=data.MISSING, mode="FAILFAST")


def _write(frame: DataFrame, table: str, columns: str, stored_as: str, partition: str | None = None) -> None:
    """A table by Hive's own statement; the partition column comes last, as Hive wants it."""
    own = [one for one in columns.split(", ") if one != partition]
    by = f"PARTITIONED BY ({partition})" if partition else ""
    spark = frame.sparkSession
    spark.sql(f"DROP TABLE IF EXISTS {DATABASE}.{table}")
    spark.sql(f"CREATE TABLE {DATABASE}.{table} ({', '.join(own)}) {by} STORED AS {stored_as}")
    names = [one.split()[0] for one in (*own, partition) if one]
    frame.select(*names).write.insertInto(f"{DATABASE}.{table}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Create the example's Hive tables.")
    parser.add_argument("--csv", type=Path, default=Path("build/nycflights"), help="where the CSV files are put")
    parser.add_argument("--config", type=Path, help="the cluster's settings; by default as `redkv` finds them")
    arguments = parser.parse_args()
    settings = load_settings(arguments.config)
    data.extract(arguments.csv)
    spark = session(settings)
    spark.sparkContext.setLogLevel("ERROR")
    try:
        create(spark, arguments.csv)
        for name in ("flights", "planes", "airports"):
            print(f"{DATABASE}.{name}: {spark.table(f'{DATABASE}.{name}').count()} rows")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
