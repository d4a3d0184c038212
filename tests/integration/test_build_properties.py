"""Random tables through the real job and a real shard, read back by redis-py, and compared with a model in plain Python.

The model knows nothing of the job: it makes keys, fields and texts from the table's rows as docs/spec.md and docs/types.md say.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from zlib import crc32

import pytest
from pyspark.sql import SparkSession
from redis import Redis

from pipeline.spec import parse_spec
from pipeline.store import ObjectStore
from tests.support.hive import hive_metastore
from tests.support.resp import RawClient
from tests.support.s3 import s3_store
from tests.support.shards import ShardProcess, running_shards
from tests.support.spark import local_spark
from tests.support.versions import publish_built
from udtf.build import build_version

VERSION = "2026-11-22"
Row = dict[str, Any]
Text = Callable[[Any], str]


@dataclass(frozen=True)
class ColumnType:
    """A Hive type: how to make a value, and its text."""

    ddl: str
    make: Callable[[random.Random], Any]
    text: Text


def _instant(chosen: random.Random) -> dt.datetime:
    return dt.datetime(1980, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
        seconds=chosen.randint(0, 2_000_000_000), microseconds=chosen.choice((0, 500, 250_000))
    )


def _instant_text(value: dt.datetime) -> str:
    fraction = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
    return value.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def _real_text(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


TYPES = {
    "tiny": ColumnType("tinyint", lambda chosen: chosen.randint(-128, 127), str),
    "whole": ColumnType("bigint", lambda chosen: chosen.randint(-(2**63), 2**63 - 1), str),
    "real": ColumnType(
        "double", lambda chosen: chosen.randint(-4_000_000, 4_000_000) / 8, lambda value: f"{value:.3f}".rstrip("0").rstrip(".")
    ),
    "exact": ColumnType("decimal(20,6)", lambda chosen: Decimal(chosen.randint(-(10**12), 10**12)) / 10**6, lambda value: f"{value:.6f}"),
    "yes": ColumnType("boolean", lambda chosen: chosen.random() < 0.5, lambda value: "true" if value else "false"),
    "word": ColumnType("string", lambda chosen: "".join(chosen.choices("ab {}$:ü\u4e2d\U0001f600\r\n\0", k=chosen.randint(0, 9))), str),
    "day": ColumnType("date", lambda chosen: dt.date(1970, 1, 1) + dt.timedelta(days=chosen.randint(-40_000, 40_000)), str),
    "moment": ColumnType("timestamp", _instant, _instant_text),
    "list": ColumnType("array<int>", lambda chosen: [chosen.randint(0, 9) for _ in range(chosen.randint(0, 3))], _compact),
    "map": ColumnType("map<string,int>", lambda chosen: {"k": chosen.randint(0, 9)}, _compact),
    "struct": ColumnType("struct<a:int,b:string>", lambda chosen: {"a": chosen.randint(0, 9), "b": "x"}, _compact),
}
TEMPLATES = ["{name}:${{id}}", "{{{name}}}:${{id}}", "{{{name}:${{shard(16)}}}}_${{id}}", "{name}:{{${{id}}}}:x"]


def key_of(template: str, row: Row) -> bytes:
    """The key of a row, as docs/spec.md says."""
    text = str(row["id"])
    return template.replace("${shard(16)}", str(1 + crc32(text.encode()) % 16)).replace("${id}", text).encode()


def rows_of(chosen: random.Random, ids: int, repeats: int) -> list[Row]:
    """Rows with a NULL here and there; every id `repeats` times, in an order of their own."""
    rows = []
    for one in range(ids):
        for again in range(repeats):
            row: Row = {name: None if chosen.random() < 0.15 else kind.make(chosen) for name, kind in TYPES.items()}
            rows.append(
                row | {"id": f"k{one}", "element": f"e{chosen.randint(0, 5 * repeats)}", "at": again, "gone": chosen.random() < 0.1}
            )
    chosen.shuffle(rows)
    return rows


def last_of(rows: list[Row], *by: str) -> list[Row]:
    """Of rows that agree in `by`, the one with the largest `at`."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        kept[tuple(row[name] for name in by)] = row
    return list(kept.values())


def texts_of(row: Row) -> dict[bytes, bytes]:
    """The fields of a hash of one row."""
    return {name.encode(): kind.text(row[name]).encode() for name, kind in TYPES.items() if row[name] is not None}


@dataclass(frozen=True)
class World:
    spark: SparkSession
    store: ObjectStore
    shard: ShardProcess
    client: Redis

    def load(self, name: str, document: dict[str, Any], rows: list[Row]) -> None:
        """A table of these rows, built, published and made active."""
        ddl = ", ".join([*(f"`{column}` {kind.ddl}" for column, kind in TYPES.items()), "id string, element string, at int, gone boolean"])
        frame = self.spark.createDataFrame([tuple(row[column] for column in (*TYPES, "id", "element", "at", "gone")) for row in rows], ddl)
        frame.write.format("parquet").saveAsTable(f"random.{name}")
        spec = parse_spec({"dataset": name, "source": {"table": f"random.{name}"}, "mode": "replace", **document}, "a random spec")
        built = build_version(self.spark, spec, VERSION, self.store)
        assert built.manifest.totals.source_rows == len(rows)
        publish_built(self.store, self.shard.paths, built.manifest)
        with RawClient(self.shard.admin_socket) as admin:
            assert admin.call("REDKV", "REGISTER", name, spec.prefix) == b"+OK\r\n"
            assert admin.call("REDKV", "ACTIVATE", name, VERSION) == b"+OK\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        s3, metastore = stack.enter_context(s3_store()), stack.enter_context(hive_metastore())
        (shard,) = stack.enter_context(running_shards(tmp_path_factory.mktemp("shard")))
        spark = stack.enter_context(local_spark(metastore, s3, spark_sql_session_timeZone="Asia/Tokyo"))
        spark.sql("CREATE DATABASE random")
        yield World(spark, s3.store, shard, stack.enter_context(Redis(port=shard.port)))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 12))])
def test_random_tables_read_back_as_the_model_says(world: World, seed: int) -> None:
    """Hashes of one row, hashes of many, strings and sorted sets, each with another template; duplicates settled, deletes marked."""
    chosen = random.Random(seed)
    templates = [template.format(name=f"n{seed}{kind}") for kind, template in zip("abcd", chosen.sample(TEMPLATES, 4), strict=True)]
    one_row, many_rows, string, zset = templates

    rows = rows_of(chosen, 80, 2)
    rules = {"on_duplicate": {"last_by": "at"}, "delete_if": "gone", "on_null": "skip"}
    world.load(f"wide{seed}", {"key": one_row, "type": "hash", "hash": {"columns": list(TYPES)}, **rules}, rows)
    kept = [row for row in last_of([row for row in rows if row["gone"] or texts_of(row)], "id") if not row["gone"]]
    assert {key_of(one_row, row): world.client.hgetall(key_of(one_row, row)) for row in rows} == {
        **{key_of(one_row, row): {} for row in rows},
        **{key_of(one_row, row): texts_of(row) for row in kept},
    }

    rows = rows_of(chosen, 20, 40)
    shape = {"field": "f/${element}", "value": "word"}
    world.load(f"long{seed}", {"key": many_rows, "type": "hash", "hash": shape, "on_duplicate": {"last_by": "at"}}, rows)
    hashes: dict[bytes, dict[bytes, bytes]] = {}
    for row in last_of([row for row in rows if row["word"] is not None], "id", "element"):
        hashes.setdefault(key_of(many_rows, row), {})[f"f/{row['element']}".encode()] = row["word"].encode()
    assert {key: world.client.hgetall(key) for key in hashes} == hashes

    rows = rows_of(chosen, 100, 1)
    column = chosen.choice(list(TYPES))
    world.load(f"text{seed}", {"key": string, "type": "string", "string": {"column": column}, "on_null": "skip"}, rows)
    expected = {key_of(string, row): None if row[column] is None else TYPES[column].text(row[column]).encode() for row in rows}
    assert {key: world.client.get(key) for key in expected} == expected

    rows = rows_of(chosen, 15, 30)
    score = chosen.choice(["tiny", "whole", "real", "exact"])
    shape = {"member": "${element}", "score": score}
    world.load(f"rank{seed}", {"key": zset, "type": "zset", "zset": shape, "on_duplicate": {"last_by": "at"}, "on_null": "skip"}, rows)
    sets: dict[bytes, list[tuple[float, bytes]]] = {key_of(zset, row): [] for row in rows}
    for row in last_of([row for row in rows if row[score] is not None], "id", "element"):
        sets[key_of(zset, row)].append((float(row[score]), row["element"].encode()))
    found: dict[bytes, Any] = {key: world.client.zrange(key, 0, -1, withscores=True) for key in sets}
    assert found == {key: [(member, value) for value, member in sorted(members)] for key, members in sets.items()}
