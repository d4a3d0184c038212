"""Deltas as they are built: whatever lies on what, it comes to the very content of a full build of the same rows."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from pipeline.format.errors import BaseChangedError, BaseMissingError, ChainTooLongError, ChecksumMismatchError, SpecError, UsageError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import BASES_MAX, Manifest
from pipeline.format.values import HashValue
from pipeline.spec import DatasetSpec, parse_spec
from tests.support.builds import build, hash_spec
from tests.support.s3 import S3
from tests.support.sstread import read_raw, read_whole

DAYS = [f"2026-11-{day:02d}" for day in range(1, 20)]
CHANGES = {"table": "features.changes", "delete_if": "gone"}

Cells = dict[tuple[int, int], int]
"""A value by key and element; of datasets of one row per key, the element is 0."""


def spec_of(kind: str, key: str = "d:${id}", **more: Any) -> DatasetSpec:
    shape: dict[str, Any] = {
        "string": {"type": "string", "string": {"column": "value"}},
        "hash": {"type": "hash", "hash": {"columns": ["element", "value"]}},
        "fields": {"type": "hash", "hash": {"field": "f${element}", "value": "value"}},
        "zset": {"type": "zset", "zset": {"member": "m${element}", "score": "value"}},
    }[kind]
    return parse_spec({"dataset": "d", "source": {"table": "features.rows"}, "key": key, "mode": "replace", **shape, **more}, "a spec")


def columns(cells: Cells) -> dict[str, list[Any]]:
    return {
        "id": [f"{one:04d}" for one, _ in cells],
        "element": [str(one) for _, one in cells],
        "value": list(cells.values()),
    }


def rows(chosen: random.Random, *, elements: bool) -> Cells:
    if not elements:
        return {(one, 0): chosen.randrange(3) for one in range(600) if chosen.random() < 0.8}
    sizes = {one: chosen.choice((0, 1, 3, 20)) for one in range(60)} | dict(zip(range(60, 63), (600, 700, 3), strict=True))
    return {(key, one): chosen.randrange(3) for key, size in sizes.items() for one in range(size)}


def changed(chosen: random.Random, cells: Cells) -> Cells:
    """Some cells with other values, without some, and with some new ones; keys that go or shrink or grow."""
    after = {cell: value if chosen.random() < 0.97 else value + 1 for cell, value in cells.items() if chosen.random() < 0.98}
    gone = {key for key, _ in cells if chosen.random() < 0.03}
    after = {cell: value for cell, value in after.items() if cell[0] not in gone}
    return after | {(key, 5000 if element else 0): 7 for key, element in cells if chosen.random() < 0.01}


KINDS = ["string", "hash", "fields", "zset"]
SPREADS = {"by slot": "d:${id}", "one slot": "{d}:${id}"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", SPREADS.values(), ids=SPREADS)
@pytest.mark.parametrize("split_rows_min", [500, 1_000_000], ids=["split", "whole"])
def test_a_chain_of_differences_is_what_a_full_build_is(s3: S3, kind: str, key: str, split_rows_min: int) -> None:
    elements = kind in {"fields", "zset"}
    chosen = random.Random(f"{kind} {key}")
    spec, cells, chain = spec_of(kind, key), rows(chosen, elements=elements), list[Manifest]()
    more: dict[str, Any] = {"split_rows_min": split_rows_min, "file_raw_bytes": 1 << 16}
    for number, version in enumerate(DAYS[:3]):
        chain.append(build(s3.store, spec, version, columns(cells), base=chain[-1].version if chain else None, **more))
        full = build(s3.store, spec, f"{version}.2", columns(cells), **more)
        assert read_whole(s3.store, *chain) == read_whole(s3.store, full)
        assert chain[-1].in_all == full.in_all
        assert len(read_raw(s3.store, *chain)) == full.totals.entries  # nothing is left that nobody reaches
        assert (chain[-1].rows_in_all, chain[-1].totals.source_rows) == (full.totals.stored_rows, len(cells))
        if number:
            assert 0 < chain[-1].totals.entries < full.totals.entries
        cells = changed(chosen, cells)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_changes_and_differences_lie_on_each_other(s3: S3, kind: str) -> None:
    elements = kind in {"fields", "zset"}
    chosen = random.Random(kind)
    spec, by_changes = spec_of(kind), spec_of(kind, changes=CHANGES)
    cells = rows(chosen, elements=elements)
    chain = [build(s3.store, spec, DAYS[0], columns(cells))]
    for number, version in enumerate(DAYS[1:5]):
        before, cells = cells, changed(chosen, cells)
        if number == 2:
            chain.append(build(s3.store, spec, version, columns(cells), base=chain[-1].version))
            assert chain[-1].in_all is not None
            assert len(read_raw(s3.store, *chain)) == chain[-1].in_all.entries
        else:
            table = table_of_changes(before, cells)
            chain.append(build(s3.store, by_changes, version, table, base=chain[-1].version))
            assert chain[-1].in_all is None
            assert chain[-1].totals.source_rows == len(table["id"])
            assert chain[-1].totals.deletes == len({one for one, _ in before} - {one for one, _ in cells}) > 0
        full = build(s3.store, spec, f"{version}.2", columns(cells))
        assert read_whole(s3.store, *chain) == read_whole(s3.store, full)


def table_of_changes(before: Cells, after: Cells) -> dict[str, list[Any]]:
    """All rows of keys of which any row changed; one marked row for every key that went."""
    keys = {cell[0] for cell, _ in before.items() ^ after.items()}
    put = {cell: value for cell, value in after.items() if cell[0] in keys}
    gone = {(key, 0): 0 for key in keys - {key for key, _ in after}}
    return {**columns({**put, **gone}), "gone": [None] * len(put) + [True] * len(gone)}


def test_a_changed_key_whose_fields_are_all_null_goes(s3: S3) -> None:
    spec, cells = spec_of("fields", changes=CHANGES), {(1, 1): 1, (1, 2): 2, (2, 1): 3, (3, 1): 4}
    first = build(s3.store, spec, DAYS[0], columns(cells))
    rows = {"id": ["0001", "0002", "0002"], "element": ["1", "1", "2"], "value": [9, None, None], "gone": [None, None, False]}
    second = build(s3.store, spec, DAYS[1], rows, base=DAYS[0])
    assert read_whole(s3.store, first, second) == {b"d:0001": HashValue(((b"f1", b"9"),)), b"d:0003": HashValue(((b"f1", b"4"),))}
    assert (second.totals.source_rows, second.totals.deletes, second.totals.skipped) == (3, 1, 1)


def test_nothing_that_differs_is_a_version_without_files(s3: S3) -> None:
    spec, cells = spec_of("string"), {(one, 0): one for one in range(100)}
    build(s3.store, spec, DAYS[0], columns(cells))
    same = build(s3.store, spec, DAYS[1], columns(cells), base=DAYS[0])
    assert (same.files, same.in_all and same.in_all.keys, same.totals.stored_rows) == ((), 100, 100)
    assert same.samples


def test_all_that_goes_is_deleted(s3: S3) -> None:
    spec = spec_of("string")
    first = build(s3.store, spec, DAYS[0], columns({(one, 0): one for one in range(1000)}))
    second = build(s3.store, spec, DAYS[1], columns({(5, 0): 5}), base=DAYS[0])
    assert (second.totals.keys, second.totals.deletes) == (0, 999)
    assert list(read_whole(s3.store, first, second)) == [b"d:0005"]


def test_what_can_not_be_a_base_is_named(s3: S3) -> None:
    spec, cells = spec_of("string"), {(one, 0): one for one in range(10)}

    def on(base: str, version: str = DAYS[-1], of: DatasetSpec = spec) -> None:
        build(s3.store, of, version, columns(cells), base=base)

    with pytest.raises(BaseMissingError, match="2026-11-01, which 2026-11-19 is to lie on, is not in the store"):
        on(DAYS[0])
    build(s3.store, spec, DAYS[0], columns(cells))
    for version in (DAYS[0], "2026-10-01"):
        with pytest.raises(UsageError, match="not older"):
            on(DAYS[0], version)
    with pytest.raises(UsageError, match="holds string values under 'd:', the spec makes hash values"):
        on(DAYS[0], of=hash_spec("d", "d:${id}"))
    with pytest.raises(UsageError, match="loaded in mode upsert"):
        on(DAYS[0], of=spec_of("string").model_copy(update={"mode": "upsert"}))
    for ttl in ({"seconds": 5}, {"seconds_from": "value"}):
        with pytest.raises(SpecError, match=f"so every key of d differs from what {DAYS[0]} holds: load .* or write ttl: {{at: column}}"):
            on(DAYS[0], of=spec_of("string", ttl=ttl))
        with pytest.raises(SpecError, match=f"the changes do not name would expire as those of {DAYS[0]} do"):
            on(DAYS[0], of=spec_of("string", ttl=ttl, changes=CHANGES))
    for before, version in pairwise(DAYS[: BASES_MAX + 1]):
        on(before, version)
    with pytest.raises(ChainTooLongError, match=f"lies on {BASES_MAX} versions already"):
        on(DAYS[BASES_MAX])


def test_a_base_that_was_built_again_or_changed_is_named(s3: S3) -> None:
    spec, cells = spec_of("string"), {(one, 0): one for one in range(10)}
    first = build(s3.store, spec, DAYS[0], columns(cells))
    second = build(s3.store, spec, DAYS[1], columns({(1, 0): 1}), base=DAYS[0])
    key = first.files[0].object_key
    s3.store.delete(key)
    s3.store.create(key, b"other bytes")
    with pytest.raises(AssertionError, match=ChecksumMismatchError.__name__):
        build(s3.store, spec, DAYS[2], columns(cells), base=DAYS[0])
    s3.store.delete(manifest_key("d", DAYS[0]))
    with pytest.raises(BaseMissingError, match="lies on 2026-11-01"):
        build(s3.store, spec, DAYS[2], columns(cells), base=second.version)
    build(s3.store, spec, DAYS[0], columns(cells))
    with pytest.raises(BaseChangedError, match=first.build_id):
        build(s3.store, spec, DAYS[2], columns(cells), base=second.version)
