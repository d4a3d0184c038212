"""What spark-submit runs: `spark-submit udtf/job.py --spec FILE --version V --store s3://… [--base V] --result FILE`.

The result file gets {"manifest_key", "build_id", "existed"}, or {"error": RedkvError.to_json()}. Exit codes are those of the errors:
0 done, 2 mend the spec, 1 anything else. Credentials come from the standard AWS chain alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from pyspark.sql import SparkSession

from pipeline.format.errors import RedkvError
from pipeline.format.layout import manifest_key
from pipeline.format.slots import SLOT_COUNT
from pipeline.spec import load_spec
from pipeline.store import ObjectStore
from udtf.build import build_version
from udtf.failures import translated
from udtf.progress import job_group, teller, watched

BATCH_ROWS = 20_000  # rows per Arrow batch: vectorised work amortises Python's overhead, while a batch stays in the cache
BATCH_BYTES = 64 << 20  # of rows that are large: Arrow's binary columns end at 2 GiB, and memory before that

SPARK_CONF = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(BATCH_BYTES),
    "spark.ui.showConsoleProgress": "false",  # the job tells its own progress
}


def main() -> int:
    """Run the job; the exit code."""
    arguments = _arguments()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        with TemporaryDirectory(prefix="redkv-build-") as scratch:
            result, code = _run(arguments, scratch), 0
    except RedkvError as failed:
        sys.stderr.write(f"error: {type(failed).__name__}: {failed.message}\n")
        result, code = {"error": failed.to_json()}, failed.exit_code
    if arguments.result:
        arguments.result.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build one version of a dataset from its Hive table.")
    parser.add_argument("--spec", type=Path, required=True, help="the dataset spec (YAML)")
    parser.add_argument("--version", required=True, help="the version id, e.g. 2026-11-22")
    parser.add_argument("--store", required=True, help="the object store's root, s3://bucket/prefix")
    parser.add_argument("--shard-borders", type=_slots, default=(), help="slots where shards of the cluster begin, e.g. 5461,10923")
    parser.add_argument("--base", help="build a delta on this version")
    parser.add_argument("--result", type=Path, help="a file for the result as JSON")
    return parser.parse_args()


def _slots(words: str) -> tuple[int, ...]:
    slots = tuple(sorted({int(word) for word in words.split(",") if word}))
    if any(not 0 <= slot < SLOT_COUNT for slot in slots):
        raise ValueError(words)
    return slots


def _run(arguments: argparse.Namespace, scratch: str) -> dict[str, Any]:
    spec = load_spec(arguments.spec)
    structlog.contextvars.bind_contextvars(dataset=spec.dataset, version=arguments.version)
    builder = SparkSession.builder.appName(f"redkv {spec.dataset} {arguments.version}")
    for name, value in SPARK_CONF.items():
        builder = builder.config(name, value)
    builder = builder.config("spark.hadoop.hive.downloaded.resources.dir", f"{scratch}/resources")  # else Hive leaves one in /tmp per job
    spark = builder.enableHiveSupport().getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    structlog.get_logger().info("session", application=spark.sparkContext.applicationId, ui=spark.sparkContext.uiWebUrl)
    try:
        group = job_group(spec.dataset, arguments.version)
        table = spec.of_changes().source.table if arguments.base else spec.source.table
        with translated(table), watched(spark.sparkContext, group, teller()):
            store, borders = ObjectStore(arguments.store), arguments.shard_borders
            built = build_version(spark, spec, arguments.version, store, shard_borders=borders, base=arguments.base)
    finally:
        spark.stop()
    key = manifest_key(spec.dataset, arguments.version)
    return {"manifest_key": key, "build_id": built.manifest.build_id, "existed": built.existed}


if __name__ == "__main__":
    sys.exit(main())
