"""The build job on real Spark, a real Hive metastore and a real S3."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyspark.sql import SparkSession

from pipeline.format.errors import (
    BuildFailedError,
    DataError,
    DuplicateKeyError,
    InvalidScoreError,
    NullValueError,
    SpecError,
    StoreUnavailableError,
    TableNotFoundError,
    UnknownColumnError,
)
from pipeline.format.keys import Kind, meta_key
from pipeline.format.layout import manifest_key
from pipeline.format.values import HashValue, StringValue, ZsetValue, parse_element_score
from pipeline.load.build import run_build
from pipeline.settings import ClusterSettings
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.stack.metastore import Metastore
from pipeline.store import ObjectStore
from tests.support.hive import spark_conf
from tests.support.s3 import S3
from tests.support.spark import SparkStack
from tests.support.sstread import read_deletes, read_version, read_whole
from tests.support.tables import documented_texts
from udtf.build import BATCH_BYTES_SETTING, UNMEASURED, Plan, assemble, build_version, described, plan_build, unmeasured, write
from udtf.progress import Seen, job_group, watched
from udtf.sample import PLAIN_BYTES, draw, plan_placement

VERSION = "2026-11-22"


@dataclass
class World:
    spark: SparkSession
    s3: S3
    metastore: Metastore

    @property
    def store(self) -> ObjectStore:
        return self.s3.store


@pytest.fixture(scope="module")
def world(spark_stack: SparkStack) -> World:
    spark = spark_stack.session("features", spark_sql_ansi_enabled="false")
    spark.sql("CREATE TABLE features.person (id BIGINT, name STRING, ds STRING) STORED AS ORC")
    spark.sql(f"INSERT INTO features.person SELECT id, concat('name ', id), '{VERSION}' FROM range(5000)")
    spark.sql("INSERT INTO features.person VALUES (1, 'old', '2026-11-21')")
    spark.sql("CREATE TABLE features.score (grp STRING, member STRING, points DOUBLE) STORED AS PARQUET")
    spark.sql("INSERT INTO features.score VALUES ('a','x',2.5), ('a','y',-1), ('b','x',1e300), ('a','w',2.5), ('b','z',NULL)")
    return World(spark, spark_stack.s3.fresh(), spark_stack.metastore)


def spec(dataset: str, table: str, key: str, kind: str = "hash", **more: Any) -> DatasetSpec:
    document = {"dataset": dataset, "key": key, "type": kind, "mode": "replace", **more}
    document.setdefault("source", {})["table"] = table
    return parse_spec(document, "a test's spec")


def person(dataset: str, key: str = "{person:${shard(16)}}_${id}") -> DatasetSpec:
    return spec(dataset, "features.person", key, hash={"columns": ["name"]}, source={"where": "ds = '${date}'"})


def test_every_row_of_the_partition_becomes_its_hash_and_a_second_build_does_nothing(world: World) -> None:
    built = build_version(world.spark, person("person"), VERSION, world.store)
    template = person("person").key_template
    expected = {template.render({"id": str(one).encode()}): HashValue(((b"name", f"name {one}".encode()),)) for one in range(5000)}
    assert read_version(world.store, built.manifest) == expected
    assert (built.existed, built.manifest.totals.source_rows, built.manifest.totals.keys) == (False, 5000, 5000)
    before = sorted(one.key for one in world.store.list(""))
    again = build_version(world.spark, person("person"), VERSION, world.store)
    assert (again.existed, again.manifest) == (True, built.manifest)
    assert sorted(one.key for one in world.store.list("")) == before


def test_rows_of_a_key_become_one_sorted_set_in_rank_order(world: World) -> None:
    scores = spec("score", "features.score", "score:${grp}", "zset", zset={"member": "${member}", "score": "points"}, on_null="skip")
    manifest = build_version(world.spark, scores, VERSION, world.store).manifest
    assert read_version(world.store, manifest) == {
        b"score:a": ZsetValue(((b"y", -1.0), (b"w", 2.5), (b"x", 2.5))),
        b"score:b": ZsetValue(((b"x", 1e300),)),
    }
    totals = manifest.totals
    assert (totals.source_rows, totals.stored_rows, totals.skipped, totals.keys) == (5, 4, 1, 2)


def test_an_upsert_deletes_the_keys_of_which_marked_rows_alone_are_left(world: World) -> None:
    world.spark.sql("CREATE TABLE features.cart (id INT, item STRING, price DOUBLE, at INT, gone BOOLEAN) STORED AS PARQUET")
    world.spark.sql(
        "INSERT INTO features.cart VALUES (1,'a',1,1,false), (1,'a',2,2,true), (1,'b',3,1,false), (2,'a',1,1,true), (2,'b',1,1,true), "
        "(3,'a',1,1,true), (3,'a',2,2,false)"
    )
    rules = {"mode": "upsert", "delete_if": "gone", "on_duplicate": {"last_by": "at"}}
    carts = spec("cart", "features.cart", "cart:${id}", "zset", zset={"member": "${item}", "score": "price"}, **rules)
    manifest = build_version(world.spark, carts, VERSION, world.store).manifest
    assert read_version(world.store, manifest) == {b"cart:1": ZsetValue(((b"b", 3.0),)), b"cart:3": ZsetValue(((b"a", 2.0),))}
    assert read_deletes(world.store, manifest) == {b"cart:2"}
    totals = manifest.totals
    assert (totals.source_rows, totals.stored_rows, totals.duplicates, totals.skipped, totals.deletes) == (7, 2, 2, 2, 1)
    prices = spec("price", "features.cart", "price:${id}", "string", string={"column": "price"}, **rules)
    manifest = build_version(world.spark, prices, VERSION, world.store).manifest
    assert read_deletes(world.store, manifest) | read_version(world.store, manifest).keys() == {b"price:1", b"price:2", b"price:3"}
    totals = manifest.totals
    assert (totals.source_rows, totals.duplicates, totals.skipped) == (7, 4, 0)
    assert (totals.keys, totals.deletes) == (totals.stored_rows, 3 - totals.stored_rows)


def test_a_split_sorted_set_keeps_of_every_member_the_last_row(world: World) -> None:
    world.spark.sql(
        "CREATE TABLE features.rank STORED AS PARQUET AS SELECT if(id < 4000, 'giant', concat('k', id % 9)) grp, id % 2000 member, "
        "double(id) points, id at FROM range(6000)"
    )
    ranks = spec(
        "rank", "features.rank", "rank:${grp}", "zset", zset={"member": "${member}", "score": "points"}, on_duplicate={"last_by": "at"}
    )
    plan = plan_build(world.spark, ranks, VERSION, world.store.root, 0)
    placement, _ = plan_placement(plan.source, ranks, plan.encoder, VERSION, 4, split_rows_min=1000)
    assert (placement.splits, placement.tasks) == ((meta_key(b"rank:giant"),), 4)
    manifest = assemble(ranks, VERSION, "b", 0, write(replace(plan, task=replace(plan.task, placement=placement))))
    last = {one % 2000: one for one in range(4000)}
    whole: dict[bytes, Any] = {**read_whole(world.store, manifest)}
    _, _, giant = whole.pop(b"rank:giant")
    members = {key[1:]: parse_element_score(value) for key, value in giant.items() if key[0] == Kind.ZSET_MEMBER}
    assert members == {b"%d" % member: float(one) for member, one in last.items()}
    small = {b"rank:k%d" % grp: {b"%d" % (one % 2000): float(one) for one in range(4000, 6000) if one % 9 == grp} for grp in range(9)}
    assert {key: dict(value.members) for key, value in whole.items()} == small
    totals = manifest.totals
    assert (totals.source_rows, totals.stored_rows, totals.duplicates) == (6000, 4000, 2000)


def test_hive_types_have_the_text_forms_of_docs_types_md(world: World) -> None:
    world.spark.sql(
        "CREATE TABLE features.types (id INT, small TINYINT, price DECIMAL(20,8), ratio FLOAT, flag BOOLEAN, code CHAR(4), raw BINARY, "
        "day DATE, at TIMESTAMP, tags ARRAY<STRING>, counts MAP<STRING,INT>, marks MAP<INT,BOOLEAN>, place STRUCT<x:INT,y:STRING>, "
        "moments ARRAY<TIMESTAMP>, none STRING) STORED AS PARQUET"
    )
    world.spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    world.spark.sql(
        "INSERT INTO features.types SELECT 1, 7Y, 0.00000001, 0.1F, true, 'ab', X'00FF', DATE'2026-01-31', TIMESTAMP'2026-01-31 05:00:00', "
        "array('a','b'), map('k',1), map(7,true), named_struct('x',1,'y','z'), array(TIMESTAMP'2026-01-31 05:00:00.0005'), NULL"
    )
    manifest = build_version(world.spark, spec("types", "features.types", "types:${id}"), VERSION, world.store).manifest
    (value,) = read_version(world.store, manifest).values()
    assert isinstance(value, HashValue)
    assert dict(value.pairs) == {
        b"small": b"7",
        b"price": b"0.00000001",
        b"ratio": b"0.1",
        b"flag": b"true",
        b"code": b"ab  ",
        b"raw": b"\x00\xff",
        b"day": b"2026-01-31",
        b"at": b"2026-01-31T10:00:00Z",
        b"tags": b'["a","b"]',
        b"counts": b'{"k":1}',
        b"marks": b'{"7":true}',
        b"place": b'{"x":1,"y":"z"}',
        b"moments": b'["2026-01-31T10:00:00.000500Z"]',
    }
    documented = documented_texts()
    assert {*documented["CHAR"], *documented["ARRAY"]} <= {text for _, text in value.pairs}


def test_strings(world: World) -> None:
    names = spec("names", "features.person", "name:${id}", "string", string={"column": "name"}, source={"where": "ds = '2026-11-21'"})
    assert read_version(world.store, build_version(world.spark, names, VERSION, world.store).manifest) == {b"name:1": StringValue(b"old")}


def test_several_columns_become_one_json_string_and_keys_expire_as_the_spec_says(world: World) -> None:
    shape = {"string": {"columns": ["id", "name"]}, "ttl": {"seconds": 60}, "source": {"where": "ds = '2026-11-21'"}}
    built = build_version(world.spark, spec("json", "features.person", "json:${id}", "string", **shape), VERSION, world.store)
    expiry = built.manifest.built_at_ms + 60_000
    assert read_version(world.store, built.manifest) == {b"json:1": StringValue(b'{"id":1,"name":"old"}', expiry)}
    assert [sample.expires_at_ms for sample in built.manifest.samples] == [expiry]


REFUSED = [
    ("no-table", {"table": "features.people", "key": "p:${id}"}, TableNotFoundError, "no table features.people"),
    (
        "no-column",
        {"table": "features.person", "key": "p:${idd}"},
        UnknownColumnError,
        "columns id, name, ds.*has no column idd.*did you mean id",
    ),
    ("filter", {"table": "features.person", "key": "p:${id}", "source": {"where": "day = 1"}}, SpecError, "field source.where"),
    ("duplicate", {"table": "features.person", "key": "p:${id}"}, DuplicateKeyError, "for instance p:1: make the key template unique"),
    ("empty", {"table": "features.person", "key": "p:${id}", "source": {"where": "id < 0"}}, DataError, "the filter matched no row"),
    (
        "null",
        {"table": "features.score", "key": "p:${grp}", "kind": "zset", "zset": {"member": "${member}", "score": "points"}},
        NullValueError,
        "NULL in column points of the row",
    ),
    (
        "text-score",
        {"table": "features.score", "key": "p:${grp}", "kind": "zset", "zset": {"member": "${member}", "score": "member"}},
        SpecError,
        "name a numeric column",
    ),
]


@pytest.mark.parametrize(("name", "made_of", "error", "message"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_cant_be_built_is_named_and_leaves_no_manifest(
    world: World, name: str, made_of: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_version(world.spark, spec(name, **made_of), VERSION, world.store)
    assert not [one.key for one in world.store.list(f"datasets/{name}/") if one.key.endswith("manifest.json")]


def test_batches_are_measured_only_where_rows_are_wide(world: World) -> None:
    world.spark.sql("CREATE TABLE features.wide STORED AS PARQUET AS SELECT id, repeat('x', 8000) AS text, array(id) AS near FROM range(9)")
    bound = world.spark.conf.get(BATCH_BYTES_SETTING)
    world.spark.conf.set(BATCH_BYTES_SETTING, str(64 << 20))
    wide = spec("wide", "features.wide", "w:${id}", hash={"columns": ["text"]})
    made = spec("made", "features.wide", "w:${id}", hash={"columns": ["near"]})
    found = {}
    for one in (person("narrow"), wide, made):
        plan = plan_build(world.spark, one, VERSION, world.store.root, 0)
        with unmeasured(plan):
            found[one.dataset] = (plan.widest, world.spark.conf.get(BATCH_BYTES_SETTING) == str(UNMEASURED))
    assert world.spark.conf.get(BATCH_BYTES_SETTING) == str(64 << 20)
    world.spark.conf.set(BATCH_BYTES_SETTING, str(bound))
    number = len("id") + PLAIN_BYTES
    assert found["narrow"][1]
    assert found["wide"] == (number + len("text") + 8000, False)
    assert found["made"] == (number + len("near") + len("[8]"), True)


def test_the_sample_looks_at_numbers_only_where_their_nulls_matter(world: World) -> None:
    few = world.spark.sql("SELECT 'key', int(NULL)").toDF("${k}", "`n`")
    many = world.spark.sql("SELECT 'key', 7, int(NULL), int(NULL), int(NULL), int(NULL)").toDF("k", *"abcde")
    assert draw(few, ["${k}"], 10).widths == [len("${k}`n`") + 3 + PLAIN_BYTES]
    assert draw(many, ["k"], 10).widths == [len("kabcde") + 3 + PLAIN_BYTES]
    sized = draw(few, ["${k}"], 10, counted="${k}")
    assert (sized.batches[0].to_pydict(), sized.rows) == ({"${k}": [3]}, 1)


@pytest.mark.parametrize("name", ["empty-hash", "empty-zset"])
def test_an_empty_version_is_valid_where_the_spec_allows_it(world: World, name: str) -> None:
    rules: dict[str, Any] = {"source": {"where": "false"}, "allow_empty": True}
    zset = {"member": "${member}", "score": "points"}
    allowed = (
        spec(name, "features.person", "e:${id}", **rules)
        if name == "empty-hash"
        else spec(name, "features.score", "e:${grp}", "zset", zset=zset, **rules)
    )
    built = build_version(world.spark, allowed, VERSION, world.store)
    assert (built.manifest.files, built.manifest.samples, set(built.manifest.totals.model_dump().values())) == ((), (), {0})
    assert build_version(world.spark, allowed, VERSION, world.store) == replace(built, existed=True)


def test_nan_scores_are_refused(world: World) -> None:
    world.spark.sql("CREATE TABLE features.nan STORED AS ORC AS SELECT 'a' grp, 'm' member, double('NaN') points")
    with pytest.raises(InvalidScoreError, match="score NaN in column points"):
        build_version(
            world.spark,
            spec("nan", "features.nan", "n:${grp}", "zset", zset={"member": "${member}", "score": "points"}),
            VERSION,
            world.store,
        )


def with_store(world: World, one: DatasetSpec, open_store: Callable[[str], Any]) -> Plan:
    plan = plan_build(world.spark, one, VERSION, world.store.root, 0)
    return replace(plan, task=replace(plan.task, open_store=open_store))


def test_a_store_that_is_away_once_costs_a_repeated_task_and_no_row_twice(world: World, tmp_path: Path) -> None:
    def store(url: str) -> Any:
        class AwayOnce:
            def upload(self, path: Path, key: str, sha256: str) -> None:
                partition = key.rpartition("/")[2].split("-")[0]
                if not (tmp_path / partition).exists():
                    (tmp_path / partition).touch()
                    raise StoreUnavailableError(f"away at the first try of {partition}")
                ObjectStore(url).upload(path, key, sha256)

        return AwayOnce()

    once = person("once")
    manifest = assemble(once, VERSION, "b", 0, write(with_store(world, once, store)))
    assert {file.object_key.rpartition("/")[2].partition("-")[0] for file in manifest.files} == {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 4  # two tasks per core
    assert (manifest.totals.source_rows, manifest.totals.keys, len(read_version(world.store, manifest))) == (5000, 5000, 5000)


def test_a_store_that_stays_away_ends_the_build_by_its_name(world: World) -> None:
    def store(_: str) -> Any:
        class Away:
            def upload(self, path: Path, key: str, sha256: str) -> None:
                raise StoreUnavailableError("away for good")

        return Away()

    away = person("away")
    with pytest.raises(StoreUnavailableError, match="away for good"):
        write(with_store(world, away, store))


def test_a_view_over_a_table_that_is_gone_is_named(world: World) -> None:
    world.spark.sql("CREATE TABLE features.base STORED AS ORC AS SELECT 1 id, 2 x")
    world.spark.sql("CREATE VIEW features.hollow AS SELECT id, x FROM features.base")
    world.spark.sql("DROP TABLE features.base")
    with pytest.raises(SpecError, match=r"can't read features\.hollow: .*TABLE_OR_VIEW_NOT_FOUND"):
        build_version(world.spark, spec("hollow", "features.hollow", "p:${id}"), VERSION, world.store)


@dataclass(frozen=True)
class Submitted:
    """A whole build by spark-submit: with which settings, of which spec, where its JVM keeps files; its log, and the arguments of every
    process that belonged to it.
    """

    settings: ClusterSettings
    spec: Path
    scratch: Path
    log: str
    arguments: frozenset[str]


@pytest.fixture(scope="module")
def submitted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    folder = tmp_path_factory.mktemp("submitted")
    scratch, file = folder / "scratch", folder / "good.yaml"
    scratch.mkdir()
    conf = {**spark_conf(world.metastore), "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={scratch}"}
    settings = ClusterSettings(store=world.s3.fresh().url, cluster="c", metastore_uris=world.metastore.uri, spark_conf=conf)
    file.write_text(yaml.safe_dump(person("person").model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    seen: set[str] = set()

    def look(_seconds: float, _stage: str) -> None:
        listed = subprocess.run(["ps", "-ww", "-eo", "pgid=,args="], capture_output=True, text=True, check=True).stdout
        processes = [line.split(maxsplit=1) for line in listed.splitlines()]
        groups = {group for group, *words in processes if str(file) in " ".join(words)}
        seen.update(" ".join(words) for group, *words in processes if group in groups)

    run_build(settings, file, VERSION, folder / "good.log", tell=look)
    return Submitted(settings, file, scratch, (folder / "good.log").read_text(encoding="utf-8"), frozenset(seen))


def test_spark_submit_builds_through_the_thrift_metastore_and_brings_errors_home(submitted: Submitted, tmp_path: Path) -> None:
    assert len([one for one in ObjectStore(submitted.settings.store).list("") if one.key.endswith("manifest.json")]) == 1
    bad, good = tmp_path / "bad.yaml", submitted.spec.read_text(encoding="utf-8")
    bad.write_text(good.replace("features.person", "features.people").replace("dataset: person", "dataset: people"), encoding="utf-8")
    with pytest.raises(TableNotFoundError, match=r"no table features\.people"):
        run_build(submitted.settings, bad, VERSION, tmp_path / "bad.log")
    log = (tmp_path / "bad.log").read_text(encoding="utf-8")
    assert [path.name for path in submitted.scratch.iterdir() if path.name.endswith("_resources")] == []
    assert "error: TableNotFoundError" in log
    assert "Traceback" not in log


def test_credentials_are_in_no_log_and_no_argument(world: World, submitted: Submitted) -> None:
    secret = world.s3.environment["AWS_SECRET_ACCESS_KEY"]
    assert any(str(submitted.spec) in one for one in submitted.arguments)  # the job, while it ran
    assert manifest_key("person", VERSION) in submitted.log  # it came to its end
    assert [text for text in (*submitted.arguments, submitted.log) if secret in text] == []


@pytest.mark.full
def test_what_spark_itself_fails_at_comes_home_in_one_sentence(world: World, tmp_path: Path) -> None:
    settings = ClusterSettings(
        store=world.s3.fresh().url, cluster="c", metastore_uris=world.metastore.uri, spark_conf=spark_conf(world.metastore)
    )
    divides = spec("divides", "features.person", "p:${id}", source={"where": "1 / (id - 5) > -2"})
    file = tmp_path / "divides.yaml"
    file.write_text(yaml.safe_dump(divides.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    with pytest.raises(BuildFailedError, match=r"built from features\.person: .*Division by zero") as failed:
        run_build(settings, file, VERSION, tmp_path / "divides.log")
    assert "\n" not in failed.value.message
    assert manifest_key("divides", VERSION) not in [one.key for one in ObjectStore(settings.store).list("")]


def test_what_a_job_does_is_seen_while_it_runs(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def hold(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        while not go.exists():
            os.sched_yield()

    told: list[Seen | None] = []

    def tell(seen: Seen | None) -> None:
        told.append(seen)
        if seen:
            go.touch()

    dataset = person("watched")
    with watched(world.spark.sparkContext, job_group("watched", VERSION), tell), described(world.spark, dataset, VERSION, "hold"):
        world.spark.range(100, numPartitions=2).mapInArrow(hold, "id long").collect()
    seen, *_, end = told
    assert seen is not None
    assert (seen.step, seen.tasks, end) == (f"watched {VERSION}: hold", 2, None)
    assert world.spark.sparkContext.getLocalProperty("spark.jobGroup.id") is None
