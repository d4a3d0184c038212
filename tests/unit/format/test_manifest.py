"""The manifest refuses totals that do not add up, and files that overlap."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.format.errors import FormatError
from pipeline.format.manifest import Manifest
from tests.support import examples


def changed(**totals: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(examples.manifest().to_json())
    document["totals"] |= totals
    return document


def parse(document: dict[str, Any]) -> Manifest:
    return Manifest.from_json(json.dumps(document).encode(), "manifest")


@pytest.mark.parametrize(
    ("totals", "reason"),
    [
        ({"source_rows": 4}, "do not add up"),
        ({"skipped": 0}, "do not add up"),
        ({"duplicates": 1}, "do not add up"),
        ({"keys": 3}, "files hold 2 keys, totals say 3"),
        ({"entries": 3}, "files hold 2 entries, totals say 3"),
        ({"deletes": 1}, "files hold 0 deletes, totals say 1"),
        ({"bytes": 1}, "files hold 1180 bytes, totals say 1"),
    ],
)
def test_totals_must_add_up(totals: dict[str, int], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse(changed(**totals))


@pytest.mark.parametrize(("smallest", "largest"), [("072e01", "072e02"), ("000001", "000002")])
def test_files_must_neither_overlap_nor_be_out_of_order(smallest: str, largest: str) -> None:
    document = changed(keys=4, entries=4, bytes=2360)
    document["files"].append(document["files"][0] | {"smallest": smallest, "largest": largest})
    document["files"].sort(key=lambda file: smallest == file["smallest"])
    with pytest.raises(FormatError, match="overlap or are out of order"):
        parse(document)


def test_files_that_follow_each_other_are_fine() -> None:
    document = changed(keys=4, entries=4, bytes=2360)
    document["files"].append(document["files"][0] | {"smallest": "0730", "largest": "0731"})
    assert len(parse(document).files) == 2


@pytest.mark.parametrize("digits", ["0", "zz", 5, None])
def test_bytes_stand_as_hex_digits(digits: Any) -> None:
    document = changed()
    document["samples"][0]["key"] = digits
    with pytest.raises(FormatError, match=r"samples\.0\.key"):
        parse(document)
