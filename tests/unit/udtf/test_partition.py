"""Folding and refusing, without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.format.errors import DuplicateKeyError, IntegrityError, StoreUnavailableError
from pipeline.format.keys import meta_key, sortable_score
from pipeline.format.values import ValueType, encode_string
from udtf.entries import EntryBatch
from udtf.partition import PartitionTask, Written
from udtf.placement import Placement
from udtf.rows import Counters, RowSchema
from udtf.sst import SstFile


@dataclass
class Uploaded:
    """What was uploaded: key and bytes; or a store that is away."""

    away: bool = False
    files: dict[str, int] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)

    def upload(self, path: Path, key: str, sha256: str) -> None:
        self.folders.add(path.parent)
        if self.away:
            raise StoreUnavailableError("the store is away")
        assert key not in self.files
        self.files[key] = path.stat().st_size


def records(
    kind: str,
    rows: Sequence[tuple[bytes | None, ...]],
    uploaded: Uploaded | None = None,
    *,
    batches: int = 1,
    last: bool = False,
    **more: Any,
) -> list[Written]:
    """What a task makes of sorted rows: (internal key, value), or (internal key, element, value)."""
    store = uploaded or Uploaded()
    placement = Placement(ValueType[kind.upper()], 1)
    task = PartitionTask("s3://nowhere/at-all", "d", "2026-11-22", "b", placement, last=last, open_store=lambda _: store, **more)
    schema = RowSchema(elements=len(rows[0]) == 3).placed_arrow
    arrays = [pa.array(column, one.type) for column, one in zip(zip(*((0, *row) for row in rows), strict=True), schema, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    size = -(-len(rows) // batches)
    return list(task.records([batch.slice(start, size) for start in range(0, len(rows), size)]))


def folded(written: list[Written]) -> tuple[int, int, int]:
    (one,) = [one.folded for one in written if one.folded]
    return one.stored, one.duplicates, one.deleted


def test_counters_come_first_and_need_no_file() -> None:
    rows = [(b"", b'{"rows": 3, "skipped": 3}'), (b"", b'{"rows": 1, "skipped": 1}')]
    assert [one.counters for one in records("hash", rows)] == [Counters(rows=3, skipped=3), Counters(rows=1, skipped=1)]


def test_an_encoders_failure_travels_as_a_record() -> None:
    rows = [(b"", b'{"error": "NullValueError", "message": "NULL in id", "fields": {"columns": ["id"]}}')]
    (failed,) = records("hash", rows)
    assert failed.failure is not None
    assert (failed.failure["error"], failed.failure["fields"]) == ("NullValueError", {"columns": ["id"]})


def test_a_key_that_two_rows_give_is_named() -> None:
    (failed,) = records("hash", [(meta_key(b"p:1"), b"x"), (meta_key(b"p:1"), b"y")])
    assert failed.failure is not None
    assert failed.failure["error"] == DuplicateKeyError.__name__
    assert failed.failure["fields"] == {"keys": ["p:1"]}


@pytest.mark.parametrize("kind", ["zset", "hash"])
def test_an_element_that_two_rows_give_is_named(kind: str) -> None:
    (failed,) = records(kind, [(meta_key(b"z:1"), b"m", sortable_score(score)) for score in (1.0, 2.0)])
    assert failed.failure is not None
    assert failed.failure["fields"] == {"key": "z:1", "element": "m"}


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_of_several_rows_the_last_one_stands_and_a_delete_takes_the_key(batches: int) -> None:
    rows = [(b"p:1", b"old"), (b"p:1", b"new"), (b"p:2", b"x"), (b"p:2", None), (b"p:3", b"y")]
    entries = [(meta_key(key), value and encode_string(value)) for key, value in rows]
    written = records("string", sorted(entries, key=itemgetter(0)), batches=batches, last=True)
    assert folded(written) == (2, 2, 1)
    members = [(b"a", None), (b"a", sortable_score(1)), (b"b", sortable_score(2)), (b"b", None)]
    written = records("zset", [(meta_key(b"z:1"), *one) for one in members], batches=batches, last=True)
    assert folded(written) == (1, 2, 1)


def test_keys_that_do_not_grow_are_never_swallowed(tmp_path: Path) -> None:
    file = SstFile(tmp_path / "x.sst")
    file.add(EntryBatch.of([b"\0\0\2b"], [b"1"]))
    with pytest.raises(IntegrityError, match=r"x\.sst"):
        file.add(EntryBatch.of([b"\0\0\2a"], [b"2"]))


def test_a_file_is_read_back_before_it_counts(tmp_path: Path) -> None:
    file = SstFile(tmp_path / "x.sst")
    file.add(EntryBatch.of([b"\0\0\1a", b"\0\0\2b"], [b"1", b"2"]))
    facts = file.finish()
    assert (facts.smallest, facts.largest, facts.keys, facts.entries, facts.bytes) == (
        b"\0\0\1a",
        b"\0\0\2b",
        1,
        2,
        facts.path.stat().st_size,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.sst"]


def test_files_are_cut_between_keys_at_the_target_size_and_no_local_file_stays() -> None:
    rows = sorted((meta_key(b"p:%d" % one), encode_string(b"x" * 100)) for one in range(1000))
    uploaded = Uploaded()
    written = records("string", rows, uploaded, file_raw_bytes=20_000, batches=50)
    files = [one.file for one in written if one.file]
    assert len(files) == len(uploaded.files) == 1000 * (len(rows[0][0]) + 102) // 20_000
    assert all(before.largest < after.smallest for before, after in pairwise(files))
    assert {file.object_key: file.bytes for file in files} == uploaded.files
    assert (sum(file.keys for file in files), folded(written)) == (1000, (1000, 0, 0))
    assert all(2 <= len(one.samples) <= 4 for one in written if one.file)
    assert not any(folder.exists() for folder in uploaded.folders)


def test_small_collections_are_one_entry_each() -> None:
    rows = [(meta_key(b"z:%d" % one), b"m%03d" % member, sortable_score(-member)) for one in range(3) for member in range(100)]
    written = records("zset", sorted(rows), file_raw_bytes=1, batches=7)
    assert (sum(one.file.keys for one in written if one.file), folded(written)) == (3, (300, 0, 0))


def test_a_key_that_two_batches_give_is_named() -> None:
    (failed,) = [one for one in records("hash", [(meta_key(b"p:1"), encode_string(b"x"))] * 2, batches=2) if one.failure]
    assert failed.failure is not None
    assert failed.failure["fields"] == {"keys": ["p:1"]}


def test_a_store_that_is_away_is_told_and_leaves_no_local_file() -> None:
    uploaded = Uploaded(away=True)
    (failed,) = records("hash", [(meta_key(b"p:1"), encode_string(b"x"))], uploaded)
    assert failed.failure is not None
    assert failed.failure["error"] == StoreUnavailableError.__name__
    assert not any(folder.exists() for folder in uploaded.folders)
