"""What a node needs of a version, and whether it fits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_sidecar.job import LINKED_BYTES_MIN
from ingest_sidecar.plan import DISK_RESERVE_BYTES, check_disk, covered, plan, still_missing
from pipeline.format.errors import DiskFullError, FormatError
from pipeline.format.keys import meta_key
from pipeline.format.manifest import BaseVersion, Manifest, ManifestFile, Totals
from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges


def file_of(first: int, last: int, name: str, size: int = 100) -> ManifestFile:
    return ManifestFile(
        object_key=f"datasets/d/versions/v/builds/b/{name}",
        slots=SlotRange(first=first, last=last),
        smallest=meta_key(b"a", first),
        largest=meta_key(b"z", last),
        keys=2,
        entries=2,
        deletes=0,
        bytes=size,
        sha256="0" * 64,
        content_digest="0" * 64,
    )


def manifest_of(*files: ManifestFile) -> Manifest:
    count = 2 * len(files)
    totals = Totals(
        source_rows=count,
        stored_rows=count,
        duplicates=0,
        skipped=0,
        keys=count,
        entries=count,
        deletes=0,
        bytes=sum(one.bytes for one in files),
    )
    return Manifest(
        dataset="d",
        version="2026-11-22",
        build_id="b",
        built_at_ms=0,
        prefix="p:",
        type="string",
        mode="replace",
        spec={},
        totals=totals,
        files=files,
        samples=(),
    )


THIRDS = even_ranges(3)
MANIFEST = manifest_of(*(file_of(one.first, one.last, f"{index}.sst", 100 + index) for index, one in enumerate(THIRDS)))


def test_a_file_that_straddles_goes_to_both_shards_and_is_counted_once() -> None:
    left, right = even_ranges(2)
    planned = plan(MANIFEST, {"a": (left,), "b": (right,)})
    assert planned.shards["a"] == ((left,), ("0.sst", "1.sst"))
    assert planned.shards["b"] == ((right,), ("1.sst", "2.sst"))
    assert [one.name for one in planned.files] == ["0.sst", "1.sst", "2.sst"]
    assert planned.bytes == 303


def test_a_shard_without_slots_needs_nothing() -> None:
    planned = plan(MANIFEST, {"a": ()})
    assert planned.files == ()
    assert planned.shards == {"a": ((), ())}


def test_a_file_counts_by_its_own_keys_not_by_its_partition() -> None:
    wide = file_of(10, 20, "w.sst").model_copy(update={"slots": SlotRange(first=0, last=SLOT_COUNT - 1)})
    planned = plan(manifest_of(wide), {"a": (SlotRange(first=0, last=9),), "b": (SlotRange(first=20, last=30),)})
    assert planned.shards["a"][1] == ()
    assert planned.shards["b"][1] == ("w.sst",)


def test_files_of_one_name_are_refused() -> None:
    two = file_of(1, 2, "x.sst"), file_of(3, 4, "other/x.sst")
    with pytest.raises(FormatError, match="names two files alike"):
        plan(manifest_of(*two), {"a": (SlotRange(first=0, last=9),)})


@given(borders=st.sets(st.integers(1, SLOT_COUNT - 1), max_size=6), shards=st.integers(1, 5))
def test_every_file_reaches_every_owner_of_its_slots_and_nobody_else(borders: set[int], shards: int) -> None:
    edges = [0, *sorted(borders), SLOT_COUNT]
    files = [file_of(low, high - 1, f"{low}.sst") for low, high in pairwise(edges)]
    owned = {str(index): (one,) for index, one in enumerate(even_ranges(shards))}
    planned = plan(manifest_of(*files), owned)
    for file in files:
        holders = {name for name, (_, names) in planned.shards.items() if f"{file.slots.first}.sst" in names}
        assert holders == {name for name, (one,) in owned.items() if one.overlaps(file.slots)}


def test_disk_that_is_too_small_is_refused_with_its_figures() -> None:
    check_disk(100, 100 + DISK_RESERVE_BYTES, "node-1", "staging d")
    with pytest.raises(DiskFullError, match="needs 101 bytes on node-1") as refused:
        check_disk(101, 100 + DISK_RESERVE_BYTES, "node-1", "staging d")
    assert refused.value.fields == {"node": "node-1", "needed": 101, "free": 100 + DISK_RESERVE_BYTES}


def test_what_is_there_is_not_downloaded_again() -> None:
    planned = plan(MANIFEST, {"a": (SlotRange(first=0, last=SLOT_COUNT - 1),)})
    assert still_missing(planned.files, {}) == 303
    assert still_missing(planned.files, {"0.sst": 100, "1.sst": 1, "2.sst": 999}) == 100


def test_what_is_written_anew_takes_room_beside_what_is_staged() -> None:
    left, right = even_ranges(2)
    straddling = {"a": (left,), "b": (right,)}
    assert plan(MANIFEST, straddling).rewritten_bytes == 2 * 101
    base = BaseVersion(version="2026-11-21", build_id="a", manifest_sha256="0" * 64)
    delta = MANIFEST.model_copy(update={"format_version": 2, "bases": (base,)})
    assert plan(delta, straddling).rewritten_bytes == 100 + 2 * 101 + 102  # small ones become one file
    large = MANIFEST.files[0].model_copy(update={"bytes": LINKED_BYTES_MIN})
    assert plan(delta.model_copy(update={"files": (large,)}), straddling).rewritten_bytes == 0


def test_covered_looks_at_slots_not_at_ranges() -> None:
    whole = (SlotRange(first=0, last=99),)
    halves = SlotRange(first=0, last=49), SlotRange(first=50, last=99)
    assert covered(whole, halves)
    assert covered(halves, whole)
    assert covered((), ())
    assert not covered(whole, halves[:1])
