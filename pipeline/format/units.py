"""Ingest units: which files of an `upsert` enter the live database together. Pure.

Rules:
- Files that share a slot belong to one unit, so a key's meta is never apart from its elements.
- Units are made of the whole manifest, so that they are the same on every node.
- Every slot belongs to one unit, also where no file has it: what is in the live database is then told by slots alone, and a shard whose
  slots are all in has all of the version, whatever was cut where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.format.keys import parse_key
from pipeline.format.manifest import ManifestFile
from pipeline.format.slots import SLOT_COUNT, SlotRange


@dataclass(frozen=True, slots=True)
class IngestUnit:
    """Some slots, and all files that have keys of them; these files have no others."""

    slots: SlotRange
    files: tuple[ManifestFile, ...]


def file_span(file: ManifestFile) -> SlotRange:
    """From the slot of a file's first key to that of its last one, which is closer than its slot partition."""
    return SlotRange(first=parse_key(file.smallest).slot, last=parse_key(file.largest).slot)


def ingest_units(files: Sequence[ManifestFile]) -> tuple[IngestUnit, ...]:
    """All files of a manifest, in their order, as units in the order of their slots; one unit of no files if there is none."""
    groups: list[list[ManifestFile]] = []
    last = -1
    for file in files:
        span = file_span(file)
        if span.first > last or not groups:
            groups.append([])
        groups[-1].append(file)
        last = span.last
    borders = [0, *(file_span(group[0]).first for group in groups[1:]), SLOT_COUNT]
    return tuple(
        IngestUnit(SlotRange(first=begin, last=end - 1), tuple(group))
        for (begin, end), group in zip(pairwise(borders), groups or [[]], strict=True)
    )
