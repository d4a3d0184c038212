"""What a load says in each mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.format.records import Mode


@dataclass(frozen=True, slots=True)
class LoadMode:
    """What the steps of a load are about."""

    ingest: str
    verify: str
    activate: str
    retire: str


MODES: Mapping[Mode, LoadMode] = {
    "replace": LoadMode(
        ingest="into a version directory of its own per shard",
        verify="counts and samples of all nodes against the manifest",
        activate="one durable write per shard",
        retire="what retention does not keep goes from the nodes",
    ),
    "upsert": LoadMode(
        ingest="files with its own rows alone are prepared for each shard",
        verify="counts of all nodes against the manifest; the version before must be in everywhere",
        activate="into the live keys, unit by unit, readers first",
        retire="no version before is kept: an upsert has no way back",
    ),
}
