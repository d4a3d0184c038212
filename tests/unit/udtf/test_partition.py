"""Folding and refusing, without files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.format.errors import DuplicateKeyError, IntegrityError
from pipeline.format.keys import meta_key, sortable_score
from pipeline.format.slots import even_ranges
from udtf.encode import ENCODED_SCHEMA
from udtf.partition import Counters, PartitionTask, Written
from udtf.sst import SstFile


def records(kind: str, rows: list[tuple[bytes, bytes]]) -> list[Written]:
    task = PartitionTask("s3://nowhere/at-all", "d", "2026-11-22", "b", kind, tuple(even_ranges(1)), 0)
    keys, values = zip(*rows, strict=True)
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0] * len(rows), pa.int32()), pa.array(keys, pa.binary()), pa.array(values, pa.binary())], schema=ENCODED_SCHEMA
    )
    return list(task.records([batch]))


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
