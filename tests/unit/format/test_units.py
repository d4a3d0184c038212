"""Ingest units: no slot is in two of them, no file is left out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.keys import meta_key
from pipeline.format.manifest import ManifestFile
from pipeline.format.slots import SLOT_COUNT, SlotRange, ranges_of, slot_set
from pipeline.format.units import file_span, ingest_units


def file(first: tuple[int, int], last: tuple[int, int]) -> ManifestFile:
    """One whose first and last key are each the nth of a slot."""
    smallest, largest = (meta_key(b"%05d" % number, slot) for slot, number in (first, last))
    slots = SlotRange(first=first[0], last=last[0])
    return ManifestFile(
        object_key="k",
        slots=slots,
        smallest=smallest,
        largest=largest,
        keys=2,
        entries=2,
        deletes=0,
        bytes=1,
        sha256="",
        content_digest="",
    )


@st.composite
def manifests(draw: st.DrawFn) -> list[ManifestFile]:
    ends = sorted(draw(st.sets(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=30)))
    return [file(first, last) for first, last in list(pairwise(ends))[::2]]


@given(manifests())
def test_every_slot_and_every_file_is_in_one_unit(files: list[ManifestFile]) -> None:
    units = ingest_units(files)
    assert [one for unit in units for one in unit.files] == files
    assert (units[0].slots.first, units[-1].slots.last) == (0, SLOT_COUNT - 1)
    assert all(before.slots.last + 1 == after.slots.first for before, after in pairwise(units))
    for unit in units:
        assert all(unit.slots.covers(file_span(one)) for one in unit.files)
        for before, after in pairwise(unit.files):
            assert file_span(after).first <= file_span(before).last, "or they were two units"


@given(st.sets(st.integers(0, SLOT_COUNT - 1), max_size=50))
def test_slots_as_ranges(slots: set[int]) -> None:
    ranges = ranges_of(slots)
    assert slot_set(ranges) == slots
    assert all(before.last + 1 < after.first for before, after in pairwise(ranges))
