"""Folding and refusing, without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rocksdict import Options, Rdict

from pipeline.format.digest import ContentDigest
from pipeline.format.errors import DuplicateKeyError, IntegrityError, StoreUnavailableError
from pipeline.format.keys import meta_key, sortable_score
from pipeline.format.values import ValueType, encode_string
from udtf.entries import EntryBatch
from udtf.partition import Folded, PartitionTask, Written
from udtf.placement import Placement
from udtf.rows import Counters, RowSchema
from udtf.split import split_metas
from udtf.sst import LISTED, SstFile


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


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize(
    ("least", "spans"),
    [(0, [(0, 9), (10, 19), (20, 49), (50, 59)]), (100, [(0, 19), (20, 49), (50, 59)]), (10_000, [(0, 59)])],
)
def test_files_end_where_shards_begin_unless_they_were_too_small(batches: int, least: int, spans: list[tuple[int, int]]) -> None:
    rows = [(meta_key(b"k", slot), encode_string(b"v")) for slot in range(60)]
    written = records("string", rows, batches=batches, shard_borders=(10, 20, 50, 9_000), shard_file_raw_bytes_min=least)
    assert [(one.file.slots.first, one.file.slots.last) for one in written if one.file] == spans


def deletes(written: list[Written]) -> tuple[int, int, int]:
    (one,) = [one.file for one in written if one.file]
    return one.keys, one.entries, one.deletes


@pytest.mark.parametrize("batches", [1, 2])
def test_an_upsert_keeps_a_delete_for_every_key_of_which_nothing_is_left(batches: int) -> None:
    rows = [(meta_key(key), value and encode_string(value)) for key, value in ((b"p:1", b"x"), (b"p:2", None), (b"p:3", b"y"))]
    written = records("string", sorted(rows, key=itemgetter(0)), batches=batches, deletes=True)
    assert (folded(written), deletes(written)) == ((2, 0, 1), (2, 2, 1))
    assert len([one for one in written for _ in one.samples]) == 2, "a delete has no reply to be sampled"
    digest, entries = ContentDigest(), sorted(rows, key=itemgetter(0))
    digest.update([key for key, _ in entries], [value for _, value in entries])
    assert [one.file.content_digest for one in written if one.file] == [digest.hexdigest()]
    one, two = sorted((meta_key(b"z:1"), meta_key(b"z:2")))
    score = sortable_score(1)
    members = [(one, b"a", score), (one, b"b", None), (two, b"a", None), (two, b"b", None)]
    written = records("zset", members, batches=batches, deletes=True)
    assert (folded(written), deletes(written)) == ((1, 0, 3), (1, 1, 1))


def test_a_split_key_whose_rows_all_delete_goes_with_an_upsert() -> None:
    placement = Placement(ValueType.HASH, 1, splits=(meta_key(b"h:1"),))
    task = PartitionTask("s3://nowhere/at-all", "d", "2026-11-22", "b", placement, open_store=lambda _: Uploaded())
    nothing = [Folded(task=0, stored=0, duplicates=0, deleted=9)]
    assert list(split_metas(task, nothing)) == []
    assert deletes(list(split_metas(replace(task, deletes=True), nothing))) == (0, 0, 1)


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


@dataclass
class Broken:
    """A writer of which one byte is flipped when the file is closed."""

    writer: Any
    path: Path
    at: int

    def finish(self) -> None:
        self.writer.finish()
        held = bytearray(self.path.read_bytes())
        held[self.at] ^= 0x10
        self.path.write_bytes(held)


def finished(path: Path, rows: EntryBatch, flipped: int | None = None) -> int | IntegrityError:
    """The size of a file of these rows, or why it was refused."""
    file: Any = SstFile(path)
    file.add(rows)
    if flipped is not None:
        file._writer = Broken(file._writer, path, flipped)
    try:
        return int(file.finish().bytes)
    except IntegrityError as refused:
        return refused


def test_a_byte_that_flips_in_a_closed_file_is_told_or_changes_no_answer(tmp_path: Path) -> None:
    """RocksDB reads on without a Bloom filter or a property that it can't trust; of the entries none may differ."""
    entries = {meta_key(b"p:%04d" % one): b"value %d" % one for one in range(1000)}
    rows = EntryBatch.of(*zip(*sorted(entries.items()), strict=True))
    size = finished(tmp_path / "whole.sst", rows)
    assert isinstance(size, int)
    results = {at: finished(tmp_path / f"{at}.sst", rows, at) for at in range(0, size, 331)}
    refused = [one.message for one in results.values() if isinstance(one, IntegrityError)]
    assert len(refused) > len(results) / 2
    assert all(".sst" in message for message in refused)
    for at in (at for at, one in results.items() if not isinstance(one, IntegrityError)):
        database = Rdict(str(tmp_path / f"{at}"), Options(raw_mode=True))
        database.ingest_external_file([str(tmp_path / f"{at}.sst")])
        assert all(database[key] == value for key, value in entries.items())
        database.close()


@dataclass
class Other:
    """A writer in whose place another file comes when it is closed."""

    writer: Any
    path: Path
    other: Path

    def finish(self) -> None:
        self.writer.finish()
        self.other.rename(self.path)


@pytest.mark.parametrize("at", [1, LISTED - 1, LISTED, 2 * LISTED])
def test_of_many_entries_every_one_is_written_and_compared(tmp_path: Path, at: int) -> None:
    keys = sorted(meta_key(b"p:%04d" % one) for one in range(2 * LISTED + 2))
    values = [b"value of " + key for key in keys]
    other: Any = SstFile(tmp_path / "other.sst")
    other.add(EntryBatch.of(keys, [*values[:at], values[at].swapcase(), *values[at + 1 :]]))
    other.finish()
    whole: Any = SstFile(tmp_path / "whole.sst")
    whole.add(EntryBatch.of(keys, values))
    assert whole.finish().entries == len(keys)
    changed: Any = SstFile(tmp_path / "changed.sst")
    changed.add(EntryBatch.of(keys, values))
    changed._writer = Other(changed._writer, changed.path, other.path)
    with pytest.raises(IntegrityError, match="other entries than were written"):
        changed.finish()


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
