from __future__ import annotations

from pathlib import Path

import pytest

from ingest_sidecar.difference import first_difference
from ingest_sidecar.rocks import SstWriter

ROWS = {b"%04d" % number: b"value %d " % number * 20 for number in range(2000)}


def sst(path: Path, rows: dict[bytes, bytes]) -> Path:
    writer = SstWriter(path)
    writer.add(sorted(rows.items()))
    assert writer.finish()
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({b"1500": b"another"}, b"1500"),
        ({b"1500": b"another", b"0700": b"another"}, b"0700"),
        ({b"1500": None}, b"1500"),
        ({b"1999": None}, b"1999"),
        ({b"15001": b"more"}, b"15001"),
        ({b"3000": b"more"}, b"3000"),
    ],
)
def test_the_first_key_that_differs_is_found(tmp_path: Path, change: dict[bytes, bytes | None], expected: bytes | None) -> None:
    changed = {key: value for key, value in {**ROWS, **change}.items() if value is not None}
    assert first_difference(sst(tmp_path / "a.sst", ROWS), sst(tmp_path / "b.sst", changed)) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sst", "b.sst"]


def test_a_copy_that_can_not_be_read_on_is_told_by_the_next_key_of_the_original(tmp_path: Path) -> None:
    original, copy = sst(tmp_path / "a.sst", ROWS), tmp_path / "b.sst"
    data = bytearray(original.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    found = first_difference(original, copy)
    assert found is not None
    assert b"0100" < found < b"1900"
