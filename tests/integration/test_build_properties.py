"""Random tables through the real job and a real shard, read back by redis-py, and compared with a model in plain Python.

The model knows nothing of the job: it makes keys, fields and texts from the table's rows as docs/spec.md and docs/types.md say. One Spark
session builds all tables.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from zlib import crc32

import pytest
from pyspark.sql import SparkSession
from redis import Redis

from pipeline.format.manifest import Manifest
from pipeline.format.values import SMALL_ENTRIES_MAX
from pipeline.spec import parse_spec
from pipeline.store import ObjectStore
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.spark import SparkStack
from tests.support.tables import DDL, RULES, SCORES, TYPES, Row, last_of, rows_of, text_of, texts_of
from tests.support.versions import publish_built
from udtf.build import build_version

VERSION = "2026-11-22"
NEVER = -1  # PEXPIRETIME of a key that stays
TEMPLATES = ("NAME:${id}", "{NAME}:${id}", "{NAME:${shard(16)}}_${id}", "NAME:{${id}}:x", "NAME:${id}:${at}")
SETTLED = {"on_duplicate": {"last_by": "at"}, "delete_if": "gone", "on_null": "skip"}


def key_of(template: str, row: Row) -> bytes:
    """The key of a row, as docs/spec.md says."""
    text = row["id"]
    return (
        template.replace("${shard(16)}", str(1 + crc32(text.encode()) % 16))
        .replace("${id}", text)
        .replace("${at}", str(row["at"]))
        .encode()
    )


def standing(rows: list[Row], *by: str) -> list[Row]:
    """The rows that SETTLED leaves: of those that agree in `by` the last one, unless it is marked."""
    return [row for row in last_of(rows, *by) if not row["gone"]]


@dataclass(frozen=True)
class World:
    spark: SparkSession
    store: ObjectStore
    shard: ShardProcess
    client: Redis

    def load(self, name: str, document: dict[str, Any], rows: list[Row]) -> Manifest:
        """A table of these rows, built, published and made active."""
        names = [*TYPES, *RULES]
        plain = DDL.replace("varchar(12)", "string").replace("char(4)", "string")  # the table's types check and pad, a frame's don't
        frame = self.spark.createDataFrame([tuple(row[column] for column in names) for row in rows], plain)
        self.spark.sql(f"CREATE TABLE random.{name} ({DDL}) USING parquet")
        frame.write.insertInto(f"random.{name}")
        spec = parse_spec({"dataset": name, "source": {"table": f"random.{name}"}, "mode": "replace", **document}, "a random spec")
        manifest = build_version(self.spark, spec, VERSION, self.store).manifest
        assert manifest.totals.source_rows == len(rows)
        publish_built(self.store, self.shard.paths, manifest)
        with RawClient(self.shard.admin_socket) as admin:
            assert admin.call("REDKV", "REGISTER", name, spec.prefix) == b"+OK\r\n"
            assert admin.call("REDKV", "ACTIVATE", name, VERSION) == b"+OK\r\n"
        return manifest

    def expiries(self, keys: Any) -> dict[bytes, int]:
        """When each key goes, in ms since the epoch."""
        return {key: self.client.pexpiretime(key) for key in keys}


@pytest.fixture(scope="module")
def world(spark_stack: SparkStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    spark = spark_stack.session("random", spark_sql_session_timeZone="Asia/Tokyo")
    with running_shards(tmp_path_factory.mktemp("shard")) as [shard], Redis(port=shard.port) as client:
        yield World(spark, spark_stack.s3.fresh().store, shard, client)


SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 12))]


def chosen_for(seed: int, name: str) -> tuple[random.Random, str, str]:
    """What decides about a table, its name, and its key template."""
    chosen = random.Random(f"{name}{seed}")
    return chosen, f"{name}{seed}", chosen.choice(TEMPLATES).replace("NAME", f"{name}{seed}")


@pytest.mark.parametrize("seed", SEEDS)
def test_hashes_of_one_row(world: World, seed: int) -> None:
    """All types; rows settled, marked, without any value; a life of their own."""
    chosen, name, template = chosen_for(seed, "wide")
    by = ("id", "at") if "${at}" in template else ("id",)
    rows = rows_of(chosen, 80, 2)
    shape = {"columns": list(TYPES)}
    manifest = world.load(name, {"key": template, "type": "hash", "hash": shape, "ttl": {"seconds_from": "left"}, **SETTLED}, rows)
    usable = [row for row in rows if row["gone"] or texts_of(row)]
    kept = {key_of(template, row): row for row in standing(usable, *by)}
    nothing: dict[bytes, dict[bytes, bytes]] = {key_of(template, row): {} for row in rows}
    assert {key: world.client.hgetall(key) for key in nothing} == nothing | {key: texts_of(row) for key, row in kept.items()}
    moments = {key: NEVER if row["left"] is None else manifest.built_at_ms + row["left"] * 1000 for key, row in kept.items()}
    assert world.expiries(kept) == moments
    totals = manifest.totals
    assert (totals.stored_rows, totals.keys) == (len(kept), len(kept))
    assert totals.duplicates == len(usable) - len(last_of(usable, *by))


@pytest.mark.parametrize("seed", SEEDS)
def test_hashes_of_renamed_and_of_all_other_columns(world: World, seed: int) -> None:
    chosen, name, template = chosen_for(seed, "named")
    rows = [row | {"word": row["word"] or "x"} for row in rows_of(chosen, 50, 1)]
    fields = {f"field {one}": one for one in chosen.sample(list(TYPES), 4)} | {"always": "word"}
    world.load(name, {"key": template, "type": "hash", "hash": {"columns": fields}, "ttl": {"at": "until"}}, rows)
    expected = {key_of(template, row): row for row in rows}
    assert {key: world.client.hgetall(key) for key in expected} == {key: texts_of(row, fields) for key, row in expected.items()}
    moments = {key: NEVER if row["until"] is None else _ms(row["until"]) for key, row in expected.items()}
    assert world.expiries(expected) == moments

    template = f"all{seed}:${{id}}:${{element}}"
    ruled = {"ttl": {"at": "until"}, "on_duplicate": {"last_by": "at"}, "delete_if": "gone"}
    world.load(f"all{seed}", {"key": template, "type": "hash", **ruled}, rows)
    others = {one: one for one in (*TYPES, "left", "page")}
    hashes = {f"all{seed}:{row['id']}:{row['element']}".encode(): _whole_row(row, others) for row in rows}
    assert {key: world.client.hgetall(key) for key in hashes} == hashes


def _ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1000)


def _whole_row(row: Row, fields: dict[str, str]) -> dict[bytes, bytes]:
    left = {**row, "left": None if row["left"] is None else str(row["left"])}
    return {} if row["gone"] else texts_of(left, fields)


@pytest.mark.parametrize("seed", SEEDS)
def test_hashes_of_many_rows(world: World, seed: int) -> None:
    """Small ones, and one above the packed limit."""
    chosen, name, template = chosen_for(seed, "long")
    template = template.replace(":${at}", "")
    column = chosen.choice(list(TYPES))
    rows = rows_of(chosen, 20, 30) + rows_of(chosen, 1, 3 * SMALL_ENTRIES_MAX, elements=10**9)
    shape = {"field": "f/${element}", "value": column}
    manifest = world.load(name, {"key": template, "type": "hash", "hash": shape, "ttl": {"seconds": 10**6}, **SETTLED}, rows)
    hashes: dict[bytes, dict[bytes, bytes | None]] = {key_of(template, row): {} for row in rows}
    for row in standing(rows, "id", "element"):
        if row[column] is not None:
            hashes[key_of(template, row)][f"f/{row['element']}".encode()] = text_of(column, row)
    assert {key: world.client.hgetall(key) for key in hashes} == hashes
    assert max(map(len, hashes.values())) > SMALL_ENTRIES_MAX
    assert world.expiries(hashes) == dict.fromkeys(hashes, manifest.built_at_ms + 10**9)


@pytest.mark.parametrize("kind", ["any", "large"])
@pytest.mark.parametrize("seed", SEEDS)
def test_strings(world: World, seed: int, kind: str) -> None:
    """Of a column of any type; and large ones, compressed or not."""
    chosen, name, template = chosen_for(seed, kind)
    column = "page" if kind == "large" else chosen.choice(list(TYPES))
    rows = rows_of(chosen, 100, 1)
    document = {"key": template, "type": "string", "string": {"column": column}, "lz4": kind == "large" and chosen.random() < 0.7}
    manifest = world.load(name, document | {"on_null": "skip", "delete_if": "gone"}, rows)
    expected = {key_of(template, row): None if row["gone"] else text_of(column, row) for row in rows}
    assert {key: world.client.get(key) for key in expected} == expected
    stored = sum(value is not None for value in expected.values())
    assert (manifest.totals.stored_rows, manifest.totals.skipped) == (stored, len(rows) - stored)


@pytest.mark.parametrize("seed", SEEDS)
def test_strings_of_json(world: World, seed: int) -> None:
    chosen, name, template = chosen_for(seed, "json")
    columns = ["list", "struct", *chosen.sample([one for one in TYPES if one not in ("extreme", "list", "struct")], 6)]
    rows = rows_of(chosen, 60, 1)
    world.load(name, {"key": template, "type": "string", "string": {"columns": columns}}, rows)
    for row in rows:
        found = json.loads(world.client.get(key_of(template, row)) or "", parse_float=Decimal, parse_int=Decimal)
        expected = {one: TYPES[one].json(row[one]) for one in columns if row[one] is not None}
        if "single" in found:
            found["single"] = type(expected["single"])(found["single"])
        assert (found, list(found)) == (expected, list(expected))


@pytest.mark.parametrize("seed", SEEDS)
def test_sorted_sets(world: World, seed: int) -> None:
    """Small ones, and one above the packed limit."""
    chosen, name, template = chosen_for(seed, "rank")
    template = template.replace(":${at}", "")
    score = chosen.choice(SCORES)
    rows = rows_of(chosen, 15, 30) + rows_of(chosen, 1, 3 * SMALL_ENTRIES_MAX, elements=10**9)
    shape = {"member": "${element}", "score": score}
    world.load(name, {"key": template, "type": "zset", "zset": shape, "ttl": {"seconds": 10**6}, **SETTLED}, rows)
    sets: dict[bytes, list[tuple[float, bytes]]] = {key_of(template, row): [] for row in rows}
    for row in standing([row for row in rows if row["gone"] or row[score] is not None], "id", "element"):
        sets[key_of(template, row)].append((float(row[score]), row["element"].encode()))
    found: dict[bytes, Any] = {key: world.client.zrange(key, 0, -1, withscores=True) for key in sets}
    assert found == {key: [(member, value) for value, member in sorted(members)] for key, members in sets.items()}
    assert max(map(len, sets.values())) > SMALL_ENTRIES_MAX
