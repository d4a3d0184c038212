"""The data of bench-serve: Hive tables, built by the Spark job, brought to one shard by a sidecar as versions of `replace` datasets.

Every value has the same length, so that a reply's size says that it came whole. Keys end in twelve digits, as redis-benchmark makes them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from bench.build import session
from pipeline.format.desired import Goal
from pipeline.load.states import State
from pipeline.spec import parse_spec
from tests.support.s3 import S3, s3_store
from tests.support.shards import ShardProcess, topology_of
from tests.support.sidecars import Head, NodeUnderTest
from tests.support.versions import ALL_SLOTS, BuiltVersion
from udtf.build import build_version

VERSION = "2026-01-01"
STRING_BYTES = 100
FIELDS = 50
FIELD_BYTES = 10
KEY_DIGITS = 12

_TEXT = "concat(sha2(cast(id AS string), 256), substr(sha2(cast(-id AS string), 256), 1, 36)) AS value"
_FIELDS = [f"substr(lpad(hex(xxhash64(id, {field})), 16, '0'), 1, {FIELD_BYTES}) AS f{field:02}" for field in range(FIELDS)]
_ID = f"lpad(cast(id AS string), {KEY_DIGITS}, '0') AS id"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset: `keys` keys `name:000000000000` upwards, strings or hashes."""

    name: str
    type: str
    keys: int

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return f"{self.name}:"

    def key(self, number: int) -> bytes:
        """The name of a key."""
        return f"{self.prefix}{number:0{KEY_DIGITS}}".encode()

    @property
    def reads_by(self) -> bytes:
        """The command that reads a key of it as a whole."""
        return b"GET" if self.type == "string" else b"HGETALL"

    @property
    def least_bytes(self) -> int:
        """What its keys and values come to at least, uncompressed."""
        value_bytes = STRING_BYTES if self.type == "string" else FIELDS * (FIELD_BYTES + len("f00"))
        return self.keys * (len(self.key(0)) + value_bytes)

    def document(self) -> dict[str, object]:
        """Its spec."""
        shape: dict[str, object] = {"string": {"column": "value"}} if self.type == "string" else {}
        source = {"table": f"bench.{self.name}"}
        return {"dataset": self.name, "source": source, "key": f"{self.prefix}${{id}}", "type": self.type, "mode": "replace", **shape}


def load(folder: Path, shard: ShardProcess, datasets: list[Dataset]) -> None:
    """Build all datasets, and bring them to the shard until it serves them."""
    with s3_store() as s3:
        spark = session(folder / "spark")
        try:
            spark.sql("CREATE DATABASE bench")
            built = {one.name: (one.prefix, [_built(spark, s3, one).wanted(Goal.ACTIVE)]) for one in datasets}
        finally:
            spark.stop()
        head = Head(s3.store)
        head.topology(topology_of([shard], [ALL_SLOTS], epoch=2))
        head.want(**built)
        node = NodeUnderTest(folder / "node", s3.url, s3.environment, [shard])
        node.root.mkdir()
        try:
            node.start()
            for one in datasets:
                node.until(one.name, VERSION, State.ACTIVE)
        finally:
            node.kill()


def _built(spark: SparkSession, s3: S3, dataset: Dataset) -> BuiltVersion:
    columns = [_TEXT] if dataset.type == "string" else _FIELDS
    spark.range(dataset.keys).selectExpr(_ID, *columns).write.format("parquet").saveAsTable(f"bench.{dataset.name}")
    manifest = build_version(spark, parse_spec(dataset.document(), "the benchmark's spec"), VERSION, s3.store).manifest
    return BuiltVersion(manifest, hashlib.sha256(manifest.to_json()).hexdigest())
