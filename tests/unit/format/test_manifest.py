"""The manifest refuses totals that do not add up, and files that overlap."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.format.errors import FormatError, FormatVersionError
from pipeline.format.manifest import BASES_MAX, Manifest
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
        ({"deletes": 1}, "do not add up"),
        ({"deletes": 1, "skipped": 0}, "files hold 0 deletes, totals say 1"),
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


def delta(**more: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(examples.delta_manifest().to_json())
    return document | more


def test_a_delta_says_what_it_lies_on_and_comes_to() -> None:
    found = parse(delta())
    assert (found.bases[0].build_id, found.in_all and found.in_all.keys, found.rows_in_all) == (examples.BUILD_ID, 1, 1)
    assert [[bool(one.deletes) for one in sort] for sort in found.sorts()] == [[False], [True]]
    assert found == Manifest.from_json(found.to_json(), "manifest")


def test_of_a_table_of_changes_only_nodes_know_the_whole() -> None:
    document = delta(whole=None)
    document["totals"]["source_rows"] = 2  # one of them deletes
    found = parse(document)
    assert (found.in_all, found.rows_in_all) == (None, None)


def test_a_full_version_is_written_as_before_there_were_deltas() -> None:
    document = json.loads(examples.manifest().to_json())
    assert document["format_version"] == 1
    assert not {"bases", "whole"} & document.keys()
    assert not {"applied"} & json.loads(examples.identity().to_json()).keys()


def test_software_that_knows_no_deltas_refuses_them_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "FORMAT_VERSION", 1)
    with pytest.raises(FormatVersionError, match="format version 2"):
        parse(delta())


BASE = json.loads(examples.delta_manifest().to_json())["bases"][0]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"format_version": 1}, "format version 1 has no bases, whole"),
        ({"bases": []}, "only a version that lies on others"),
        ({"mode": "upsert"}, "lies on no other"),
        ({"bases": [BASE] * (BASES_MAX + 1)}, "at most 7 items"),
        ({"whole": None}, "do not add up"),
        ({"files": delta()["files"][::-1]}, "out of order"),
    ],
)
def test_a_delta_that_makes_no_sense_is_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse(delta(**more))


def test_a_file_of_a_delta_has_puts_or_deletes() -> None:
    document = delta()
    document["files"][1] |= {"deletes": 1}
    document["totals"]["deletes"] = 2
    with pytest.raises(FormatError, match="has puts and deletes"):
        parse(document)
