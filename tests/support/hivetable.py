"""Makes a Hive table with partitions, as a command: `python -m tests.support.hivetable SETTINGS TABLE ROWS DAY...`.

Rows have the columns `id` and `name`, which tells the day; the table is partitioned by `ds`. Days are added to a table that exists.
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples.nycflights.tables import session
from pipeline.settings import load_settings


def main() -> None:
    settings_path, table, rows, *days = sys.argv[1:]
    spark = session(load_settings(Path(settings_path)))
    try:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {table.partition('.')[0]}")
        spark.sql(f"CREATE TABLE IF NOT EXISTS {table} (id STRING, name STRING) PARTITIONED BY (ds STRING) STORED AS PARQUET")
        for day in days:
            frame = spark.range(int(rows)).selectExpr("CAST(id AS STRING) AS id", f"concat('{day} ', id) AS name", f"'{day}' AS ds")
            frame.write.insertInto(table)
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
