"""From rows to files without Spark: whatever the skew, files never overlap, tasks are even, and everything reads back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count
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
from udtf.build import assemble, encode_all
from udtf.encode import Encoder
from udtf.partition import PartitionTask, Written
from udtf.placement import Placement, even_borders
from udtf.rocks import SstReader
from udtf.rows import RowSchema
from udtf.source import value_columns
from udtf.split import split_metas

VERSION = "2026-11-22"


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


def spec_of(kind: str, key: str) -> DatasetSpec:
    shape = {"hash": {"field": "${element}", "value": "value"}, "zset": {"member": "${element}", "score": "value"}}[kind]
    document = {"dataset": "d", "source": {"table": "db.t"}, "key": key, "type": kind, "mode": "replace", kind: shape}
    return parse_spec(document, "a test's spec")


def build(
    folder: Path, kind: str, key: str, rows: list[tuple[str, str, float]], split_rows_min: int, **more: Any
) -> tuple[Manifest, Kept, Placement]:
    spec = spec_of(kind, key)
    table = pa.table(dict(zip(("id", "element", "value"), map(list, zip(*rows, strict=True)), strict=True)))
    encoder = Encoder(spec, value_columns(spec, table.column_names), RowSchema(elements=True), 0)
    encoded = pa.Table.from_batches(encode_all(encoder, table.to_batches(max_chunksize=100)), encoder.schema.arrow)
    placement = placed_evenly(spec, VERSION, encoded, encoder.schema, split_rows_min)
    kept = Kept(folder)
    task = PartitionTask("", "d", VERSION, "b", placement, open_store=lambda _: kept, **more)
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


@settings(max_examples=15, deadline=None)
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


def test_borders_lie_between_slots_unless_a_slot_is_heavy() -> None:
    spread = sorted(meta_key(b"p:%d" % one) for one in range(10_000))
    borders = even_borders(spread, 8)
    assert [len(border) for border in borders] == [2] * 7
    placement = Placement(ValueType.STRING, 0, borders)
    tasks = placement.task_of(pa.array(spread, pa.binary())).tolist()
    assert tasks == sorted(tasks)
    assert all(abs(tasks.count(task) - 1250) < 50 for task in range(8))
    assert placement.fences == ()
    one_slot = sorted(meta_key(b"{t}%d" % one) for one in range(1000))
    placement = Placement(ValueType.STRING, 0, even_borders(one_slot, 8))
    tasks = placement.task_of(pa.array(one_slot, pa.binary())).tolist()
    assert [tasks.count(task) for task in range(8)] == [125] * 8
    assert tasks == sorted(tasks)


@pytest.mark.parametrize("ikeys", [[], [meta_key(b"a")], [meta_key(b"a")] * 50])
def test_few_keys_make_few_tasks(ikeys: list[bytes]) -> None:
    assert len(even_borders(ikeys, 8)) <= 1
