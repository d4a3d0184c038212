"""Folding and refusing, without files."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.format.errors import CollectionTooLargeError, DuplicateKeyError, IntegrityError, StoreUnavailableError
from pipeline.format.keys import meta_key, sortable_score
from pipeline.format.slots import even_ranges
from pipeline.format.values import PACKED_BYTES_MAX, PACKED_ENTRIES_MAX, encode_string
from udtf.encode import ENCODED_SCHEMA
from udtf.partition import Counters, PartitionTask, Written
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
    kind: str, rows: list[tuple[bytes, bytes]], uploaded: Uploaded | None = None, file_raw_bytes: int = 1 << 20, batches: int = 1
) -> list[Written]:
    store = uploaded or Uploaded()
    task = PartitionTask(
        "s3://nowhere/at-all", "d", "2026-11-22", "b", kind, tuple(even_ranges(1)), 0, None, file_raw_bytes, open_store=lambda _: store
    )
    keys, values = zip(*rows, strict=True)
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0] * len(rows), pa.int32()), pa.array(keys, pa.binary()), pa.array(values, pa.binary())], schema=ENCODED_SCHEMA
    )
    size = -(-len(rows) // batches)
    return list(task.records([batch.slice(start, size) for start in range(0, len(rows), size)]))


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


def test_a_member_that_two_rows_give_is_named() -> None:
    ranks = [sortable_score(1.0) + b"m", sortable_score(2.0) + b"m"]
    (failed,) = records("zset", [(meta_key(b"z:1"), rank) for rank in ranks])
    assert failed.failure is not None
    assert failed.failure["fields"] == {"key": "z:1", "member": "m"}


def test_keys_that_do_not_grow_are_never_swallowed(tmp_path: Path) -> None:
    file = SstFile(tmp_path / "x.sst")
    file.add([b"b"], [b"1"])
    with pytest.raises(IntegrityError, match=r"x\.sst"):
        file.add([b"a"], [b"2"])


def test_a_file_is_read_back_before_it_counts(tmp_path: Path) -> None:
    file = SstFile(tmp_path / "x.sst")
    file.add([b"a", b"b"], [b"1", b"2"])
    facts = file.finish()
    assert (facts.smallest, facts.largest, facts.entries, facts.bytes) == (b"a", b"b", 2, facts.path.stat().st_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.sst"]


def test_files_are_cut_between_keys_at_the_target_size_and_no_local_file_stays() -> None:
    rows = sorted((meta_key(b"p:%d" % one), encode_string(b"x" * 100)) for one in range(1000))
    uploaded = Uploaded()
    written = records("string", rows, uploaded, file_raw_bytes=20_000, batches=50)
    files = [one.file for one in written if one.file]
    assert len(files) == len(uploaded.files) == 1000 * (len(rows[0][0]) + 102) // 20_000
    assert all(before.largest < after.smallest for before, after in pairwise(files))
    assert {file.object_key: file.bytes for file in files} == uploaded.files
    assert (sum(file.keys for file in files), sum(one.rows for one in written)) == (1000, 1000)
    assert all(2 <= len(one.samples) <= 4 for one in written)
    assert not any(folder.exists() for folder in uploaded.folders)


def test_a_sorted_set_is_never_cut() -> None:
    rows = [(meta_key(b"z:%d" % one), sortable_score(float(score)) + b"m%03d" % score) for one in range(3) for score in range(100)]
    written = records("zset", sorted(rows), file_raw_bytes=1, batches=7)
    assert [(one.file.keys, one.rows) for one in written if one.file] == [(1, 100)] * 3


@pytest.mark.parametrize(
    ("members", "length"),
    [(PACKED_ENTRIES_MAX + 1, 8), (3, PACKED_BYTES_MAX // 2), (62_500, 250)],  # the last one fits but for its lengths and offsets
)
def test_a_sorted_set_beyond_the_packed_limits_is_refused_by_name(members: int, length: int) -> None:
    rows = [(meta_key(b"z:big"), sortable_score(1.0) + b"%0*d" % (length, one)) for one in range(members)]
    (failed,) = records("zset", rows)
    assert failed.failure is not None
    assert (failed.failure["error"], failed.failure["fields"]) == (CollectionTooLargeError.__name__, {"key": "z:big"})


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
