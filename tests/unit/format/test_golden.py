"""The golden files: this software writes these bytes, and reads them back to what they are said to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.format.admin import ShardStatus, VersionIdentity
from pipeline.format.audit import AuditRecord
from pipeline.format.desired import Desired
from pipeline.format.keys import parse_key, parse_sortable_score
from pipeline.format.manifest import Manifest
from pipeline.format.queue import LoadQueue
from pipeline.format.records import VersionedRecord
from pipeline.format.slots import key_slot
from pipeline.format.topology import Topology
from pipeline.format.values import Flag, decode_value, decompressed, encode_value
from tests.support import examples, golden


def load(name: str) -> dict[str, Any]:
    document = json.loads((golden.GOLDEN / name).read_bytes())
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", sorted(golden.goldens()))
def test_this_software_writes_the_golden_bytes(name: str) -> None:
    written = golden.goldens()[name]
    assert (golden.GOLDEN / name).read_bytes() == written, f"tests/golden/{name} differs: if the format was meant to change, `make golden`"


def test_every_golden_file_is_compared() -> None:
    assert {path.name for path in golden.GOLDEN.iterdir()} == set(golden.goldens())


@pytest.mark.parametrize("digits", load("keys.json").values())
def test_golden_keys_parse(digits: str) -> None:
    raw = bytes.fromhex(digits)
    assert parse_key(raw).encode() == raw


@pytest.mark.parametrize("digits", load("values.json").values())
def test_golden_values_decode(digits: str) -> None:
    raw = bytes.fromhex(digits)
    assert encode_value(decode_value(raw)) == (decompressed(raw) if raw[1] & Flag.LZ4 else raw)


def test_golden_scores_parse_and_grow() -> None:
    scores = load("scores.json")
    assert [parse_sortable_score(bytes.fromhex(digits)) for digits in scores.values()] == [float(text) for text in scores]
    assert list(scores.values()) == sorted(scores.values())


def test_golden_slots() -> None:
    slots = load("slots.json")
    assert {name: key_slot(name.encode()) for name in slots} == slots


@pytest.mark.parametrize(
    ("name", "kind", "example"),
    [
        ("manifest.json", Manifest, examples.manifest),
        ("topology.json", Topology, examples.topology),
        ("desired.json", Desired, examples.desired),
        ("queue.json", LoadQueue, examples.queue),
        ("audit.json", AuditRecord, examples.audit_record),
        ("VERSION.json", VersionIdentity, examples.identity),
        ("status.json", ShardStatus, examples.shard_status),
    ],
)
def test_golden_records_read_back(name: str, kind: type[VersionedRecord], example: Callable[[], VersionedRecord]) -> None:
    assert kind.from_json((golden.GOLDEN / name).read_bytes(), name) == example()
