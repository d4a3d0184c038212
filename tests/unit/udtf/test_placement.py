"""From rows to files without Spark: whatever the skew, files never overlap, tasks are even, and everything reads back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.format.keys import Kind, meta_key, parse_key, parse_sortable_score
from pipeline.format.manifest import Manifest, ManifestFile
from pipeline.format.values import SMALL_ENTRIES_MAX, BigValue, HashValue, ValueType, ZsetValue, decode_value, parse_element_score
from pipeline.spec import DatasetSpec, parse_spec
from tests.support.builds import TASKS, placed_evenly, sorted_tasks
from udtf.build import ROWS, assemble, count_settled, encode_all
from udtf.encode import Encoder
from udtf.partition import PartitionTask, Written
from udtf.placement import Placement, even_borders
from udtf.rocks import SstReader
from udtf.rows import RowSchema
from udtf.source import value_columns
from udtf.split import split_metas

VERSION = "2026-11-22"
LAST = {"on_duplicate": {"last_by": "at"}}
LAST_ROWS = RowSchema(elements=True, order_ddl="bigint", order_type=pa.int64())


class Kept:
    """A store that reads every uploaded file at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, list[tuple[bytes, bytes]]] = {}

    def upload(self, path: Path, key: str, sha256: str) -> None:
        number = next(_numbers)
        link = self.folder / f"{number}.sst"
        link.hardlink_to(path)
        with SstReader(link, self.folder / f"{number}.db") as reader:
            self.entries[key] = list(reader.items())


_numbers = count()


def spec_of(kind: str, key: str, **more: Any) -> DatasetSpec:
    shape = {"hash": {"field": "${element}", "value": "value"}, "zset": {"member": "${element}", "score": "value"}}[kind]
    document = {"dataset": "d", "source": {"table": "db.t"}, "key": key, "type": kind, "mode": "replace", kind: shape, **more}
    return parse_spec(document, "a test's spec")


def build(
    folder: Path, kind: str, key: str, rows: Sequence[tuple[Any, ...]], split_rows_min: int, *, last: bool = False, **more: Any
) -> tuple[Manifest, Kept, Placement]:
    """A version of rows: key, element, value, and, if the `last` one is to stand, a number that grows."""
    spec = spec_of(kind, key, **LAST if last else {})
    table = pa.table(dict(zip(("id", "element", "value", *(("at",) if last else ())), map(list, zip(*rows, strict=True)), strict=True)))
    encoder = Encoder(spec, value_columns(spec, table.column_names), LAST_ROWS if last else RowSchema(elements=True), 0)
    encoded = pa.Table.from_batches(encode_all(encoder, table.to_batches(max_chunksize=100)), encoder.schema.arrow)
    placement = placed_evenly(spec, VERSION, encoded, encoder.schema, split_rows_min)
    kept = Kept(folder)
    task = PartitionTask("", "d", VERSION, "b", placement, last=last, open_store=lambda _: kept, **more)
    written: list[Written] = []
    for batch in sorted_tasks(encoder, placement, encoded):
        written += task.records([batch.slice(at, 70) for at in range(0, batch.num_rows, 70)])
    assert [one.failure for one in written if one.failure] == []
    written += split_metas(task, (one.folded for one in written if one.folded))
    return assemble(spec, VERSION, "b", 0, written), kept, placement


def read(files: Iterable[ManifestFile], kept: Kept) -> dict[bytes, dict[bytes, Any]]:
    """What the files hold, by user key; ranks must say what members say."""
    model: dict[bytes, dict[bytes, Any]] = {}
    counts: dict[bytes, int] = {}
    ranks: dict[bytes, dict[bytes, float]] = {}
    for file in files:
        entries = kept.entries[file.object_key]
        assert (entries[0][0], entries[-1][0], len(entries)) == (file.smallest, file.largest, file.entries)
        assert file.keys == sum(key[2] == Kind.META for key, _ in entries)
        for raw, value in entries:
            key = parse_key(raw)
            if key.kind is Kind.ZSET_RANK:
                ranks.setdefault(key.user_key, {})[key.detail[8:]] = parse_sortable_score(key.detail[:8])
            elif key.kind is Kind.ZSET_MEMBER:
                model.setdefault(key.user_key, {})[key.detail] = parse_element_score(value)
            elif key.kind is Kind.HASH_FIELD:
                model.setdefault(key.user_key, {})[key.detail] = value
            else:
                match decode_value(value):
                    case BigValue(count=number):
                        counts[key.user_key] = number
                    case HashValue(pairs=pairs) | ZsetValue(members=pairs):
                        model[key.user_key] = dict(pairs)
    assert {key: len(model[key]) for key in counts} == counts
    assert ranks == {key: model[key] for key in ranks}
    return model


def expected(kind: str, prefix: str, rows: list[tuple[str, str, float]]) -> dict[bytes, dict[bytes, Any]]:
    model: dict[bytes, dict[bytes, Any]] = {}
    for key, element, value in rows:
        model.setdefault(f"{prefix}{key}".encode(), {})[element.encode()] = value if kind == "zset" else b"%d" % value
    return model


names = st.text(st.characters(codec="utf-8"), max_size=3)


@settings(max_examples=15)
@given(
    st.sampled_from(["hash", "zset"]),
    st.sampled_from(["{tag}:${id}", "p:${id}"]),
    st.dictionaries(names, st.dictionaries(names, st.integers(-9, 9).map(float), max_size=12, min_size=1), min_size=1, max_size=8),
    st.sets(st.sampled_from(["", "a", "a\0", "ab", "\0"]), max_size=3),
    st.sampled_from([1, 1 << 30]),
    st.randoms(use_true_random=False),
)
def test_any_rows_read_back_as_a_plain_model_says(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    key: str,
    small: dict[str, dict[str, float]],
    large: set[str],
    split_rows_min: int,
    shuffle: random.Random,
) -> None:
    """Small keys, and up to three beyond the packed limit, which are split or not; names that are prefixes of each other and hold zeros."""
    rows = [(name, element, value) for name, elements in small.items() if name not in large for element, value in elements.items()]
    rows += [(name, f"{one:x}", float(one % 100)) for name in large for one in range(SMALL_ENTRIES_MAX + shuffle.randint(1, 300))]
    shuffle.shuffle(rows)
    manifest, kept, _ = build(tmp_path_factory.mktemp("files"), kind, key, rows, split_rows_min, file_raw_bytes=1 << 14)
    assert read(manifest.files, kept) == expected(kind, key.partition("$")[0], rows)


@pytest.mark.parametrize("kind", ["hash", "zset"])
def test_one_giant_key_is_spread_evenly(tmp_path: Path, kind: str) -> None:
    rows = [("giant", f"{one:05}", float(-one)) for one in range(5000)] + [(f"{one}", "x", 1.0) for one in range(200)]
    manifest, kept, placement = build(tmp_path, kind, "{tag}:${id}", rows, 1000)
    assert placement.splits == (meta_key(b"{tag}:giant"),)
    per_task: dict[str, int] = {}
    for file in manifest.files:
        task = file.object_key.rpartition("/")[2].partition("-")[0]
        per_task[task] = per_task.get(task, 0) + file.entries
    del per_task[f"{placement.tasks:05}"]  # the metas of split keys
    mean = sum(per_task.values()) / placement.tasks
    assert len(per_task) == TASKS
    assert max(per_task.values()) < 1.5 * mean
    assert read(manifest.files, kept) == expected(kind, "{tag}:", rows)


def test_counters_among_the_settled_rows_of_a_split_sorted_set_go_to_the_first_task(tmp_path: Path) -> None:
    """As Spark hands them on after it grouped rows and counters alike, in any order."""
    spec = spec_of("zset", "{tag}:${id}", **LAST)
    rows = [
        (name, f"{one:04}", float(one * at), at) for at in (1, 2) for name, size in (("giant", 900), ("small", 9)) for one in range(size)
    ]
    table = pa.table(dict(zip(("id", "element", "value", "at"), map(list, zip(*rows, strict=True)), strict=True)))
    schema = LAST_ROWS
    encoder = Encoder(spec, value_columns(spec, table.column_names), schema, 0)
    encoded = pa.Table.from_batches(encode_all(encoder, table.to_batches()), schema.arrow)
    placement = placed_evenly(spec, VERSION, encoded, schema, 100)
    assert (placement.splits, placement.tasks) == ((meta_key(b"{tag}:giant"),), TASKS)
    groups: dict[tuple[bytes, bytes], list[tuple[Any, ...]]] = {}
    for row in zip(*(column.to_pylist() for column in encoded.columns), strict=True):
        groups.setdefault(row[:2], []).append(row)
    settled = [(*max(group, key=itemgetter(3)), len(group)) for group in groups.values()]
    random.Random(1).shuffle(settled)
    grouped = pa.RecordBatch.from_arrays(list(map(pa.array, zip(*settled, strict=True))), names=[*schema.arrow.names, ROWS])
    counted = pa.Table.from_batches(count_settled(schema, [grouped]))
    kept = Kept(tmp_path)
    task = PartitionTask("", "d", VERSION, "b", placement, last=True, open_store=lambda _: kept)
    written = [record for batch in sorted_tasks(encoder, placement, counted) for record in task.records([batch])]
    written += split_metas(task, (one.folded for one in written if one.folded))
    manifest = assemble(spec, VERSION, "b", 0, written)
    assert read(manifest.files, kept) == expected("zset", "{tag}:", [row[:3] for row in rows])
    assert (manifest.totals.source_rows, manifest.totals.stored_rows, manifest.totals.duplicates) == (1818, 909, 909)


@pytest.mark.parametrize("split_rows_min", [2, 1 << 30], ids=["split", "whole"])
def test_a_newer_null_takes_a_field_away_and_a_hash_of_nulls_does_not_exist(tmp_path: Path, split_rows_min: int) -> None:
    rows = [("k", "price", 10.0, 1), ("k", "price", None, 2), ("k", "name", None, 1), ("k", "name", 7.0, 2), ("none", "price", None, 1)]
    rows += [(f"x{one}", "price", 1.0, 1) for one in range(50)]
    manifest, kept, _ = build(tmp_path, "hash", "{tag}:${id}", rows, split_rows_min, last=True)
    stored = {f"{{tag}}:x{one}".encode(): {b"price": b"1"} for one in range(50)}
    assert read(manifest.files, kept) == stored | {b"{tag}:k": {b"name": b"7"}}
    totals = manifest.totals
    assert (totals.source_rows, totals.stored_rows, totals.duplicates, totals.skipped) == (55, 51, 2, 2)


def test_an_upserts_hash_of_nulls_is_deleted(tmp_path: Path) -> None:
    manifest, _, _ = build(tmp_path, "hash", "p:${id}", [("1", "a", 1.0), ("2", "a", None), ("2", "b", None)], 1 << 30, deletes=True)
    totals = manifest.totals
    assert (totals.keys, totals.stored_rows, totals.deletes, totals.skipped) == (1, 1, 1, 1)


def test_a_repeated_task_counts_in_the_very_same_row() -> None:
    schema = RowSchema(elements=True)
    assert schema.counter_row("{}") == schema.counter_row("{}")


def test_borders_lie_between_slots_unless_a_slot_is_heavy() -> None:
    spread = sorted(meta_key(b"p:%d" % one) for one in range(10_000))
    borders = even_borders(((ikey, 0) for ikey in spread), 8)
    assert [len(border) for border in borders] == [2] * 7
    placement = Placement(ValueType.STRING, 0, borders)
    tasks = placement.task_of(pa.array(spread, pa.binary())).tolist()
    assert tasks == sorted(tasks)
    assert all(abs(tasks.count(task) - 1250) < 50 for task in range(8))
    assert placement.fences == ()
    one_slot = sorted(meta_key(b"{t}%d" % one) for one in range(1000))
    placement = Placement(ValueType.STRING, 0, even_borders(((ikey, 0) for ikey in one_slot), 8))
    tasks = placement.task_of(pa.array(one_slot, pa.binary())).tolist()
    assert [tasks.count(task) for task in range(8)] == [125] * 8
    assert tasks == sorted(tasks)


@pytest.mark.parametrize("ikeys", [[], [meta_key(b"a")], [meta_key(b"a")] * 50])
def test_few_keys_make_few_tasks(ikeys: list[bytes]) -> None:
    assert len(even_borders([(ikey, 0) for ikey in ikeys], 8)) <= 1


def test_tasks_are_even_by_bytes_where_rows_are_not() -> None:
    """One key in a hundred has nearly all bytes, and all lie side by side."""
    weighed = [(meta_key(b"{p}image_%04d" % one), 50_000) for one in range(100)]
    weighed += [(meta_key(b"{p}name_%04d" % one), 10) for one in range(9_900)]
    placement = Placement(ValueType.STRING, 0, even_borders(weighed, 8))
    tasks = placement.task_of(pa.array([ikey for ikey, _ in weighed], pa.binary())).tolist()
    bytes_of = [0] * 8
    for task, (_, row_bytes) in zip(tasks, weighed, strict=True):
        bytes_of[task] += row_bytes
    assert max(bytes_of) < 2 * sum(bytes_of) / 8
    assert tasks.count(7) < 9_900, "rows cost something, however short they are"
