"""Stored JSON records: they round-trip, anything else is a FormatError, and newer ones are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.admin import ShardStatus, VersionIdentity
from pipeline.format.desired import Desired
from pipeline.format.errors import FormatError, FormatVersionError
from pipeline.format.manifest import Manifest
from pipeline.format.records import DATASET_NAME, VERSION_ID, VersionedRecord, version_order
from pipeline.format.topology import Topology
from tests.support import examples

RECORDS = [examples.manifest(), examples.topology(), examples.desired(), examples.identity(), examples.shard_status()]
KINDS = st.sampled_from([Manifest, Topology, Desired, VersionIdentity, ShardStatus])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, as a path."""
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [path] * bool(path) + [place for step, below in inner for place in places(below, (*path, step))]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_round_trip(record: VersionedRecord) -> None:
    assert type(record).from_json(record.to_json(), "here") == record


@given(KINDS, st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_a_format_error(kind: type[VersionedRecord], raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"^somewhere "):
        kind.from_json(raw, "somewhere")


@given(st.sampled_from(RECORDS), JSON, st.data())
def test_one_changed_field_is_a_format_error_or_another_record(record: VersionedRecord, value: Any, data: st.DataObject) -> None:
    document = json.loads(record.to_json())
    *path, last = data.draw(st.sampled_from(places(document)))
    inner = document
    for step in path:
        inner = inner[step]
    inner[last] = value
    try:
        changed = type(record).from_json(json.dumps(document).encode(), "somewhere")
    except FormatError:
        return
    assert type(record).from_json(changed.to_json(), "again") == changed


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_an_unknown_field_is_refused(record: VersionedRecord) -> None:
    document = json.loads(record.to_json()) | {"surprise": 1}
    with pytest.raises(FormatError, match="surprise"):
        type(record).from_json(json.dumps(document).encode(), "here")


def test_a_newer_format_is_refused_before_its_fields_are_looked_at() -> None:
    with pytest.raises(FormatVersionError, match="format version 2; this software reads up to 1: upgrade it first") as refused:
        Manifest.from_json(b'{"format_version": 2, "fields": "of the future"}', "datasets/x/manifest.json")
    assert refused.value.fields == {"where": "datasets/x/manifest.json", "written": 2, "readable": 1}


def test_records_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        examples.topology().epoch = 2  # type: ignore[misc]


@pytest.mark.parametrize("good", ["2026-11-22", "2026-11-22.2", "2026-11-22T06", "2026-11-22T0630", "2026-11-22T063059.10"])
def test_version_ids(good: str) -> None:
    assert VERSION_ID.fullmatch(good)


@pytest.mark.parametrize(
    "bad", ["", "latest", "2026-11-2", "2026-11-22.0", "2026-11-22T6", "../2026-11-22", "2026-11-22\n", "2026-11-\uff12\uff12"]
)
def test_what_is_no_version_id(bad: str) -> None:
    assert not VERSION_ID.fullmatch(bad)


@pytest.mark.parametrize("bad", ["", "Person", "1st", "a/b", "a" * 65, "é", "a\n"])
def test_what_is_no_dataset_name(bad: str) -> None:
    assert not DATASET_NAME.fullmatch(bad)


def test_version_ids_sort_by_time_then_by_rebuild() -> None:
    ordered = ["2026-11-21", "2026-11-22", "2026-11-22.2", "2026-11-22.10", "2026-11-22T06", "2026-11-22T06.2", "2026-11-23"]
    ordered.reverse()
    assert sorted(ordered, key=version_order) == ordered[::-1]
