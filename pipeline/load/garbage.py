"""What no manifest names: files of builds that failed, of task attempts that did not commit, of builds that finished second.

Rules:
- A manifest is written last, so the files of a build that goes on are named by none yet: what is younger than `age_min_s` is let be.
- Files of a version are garbage only beside that version's own manifest, or if it has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pipeline.format.errors import ObjectMissingError
from pipeline.format.layout import DATASETS_ROOT, manifest_key, parse_build_key
from pipeline.format.manifest import Manifest
from pipeline.store import ObjectInfo, ObjectStore

AGE_MIN_S = 48 * 3600.0  # no build goes on for so long


@dataclass(frozen=True, slots=True)
class Garbage:
    """The garbage of one build: its objects, and when the last of them was written, in seconds since the epoch."""

    dataset: str
    version: str
    build_id: str
    objects: tuple[ObjectInfo, ...]

    @property
    def bytes(self) -> int:
        """All objects together."""
        return sum(one.size for one in self.objects)

    @property
    def modified_s(self) -> float:
        """When the last of them was written."""
        return max(one.modified_s for one in self.objects)


def find_garbage(store: ObjectStore, now_s: float, age_min_s: float = AGE_MIN_S) -> Iterator[Garbage]:
    """The garbage of all builds of all datasets whose last object is old enough.

    Raises:
        StoreError: the object store refused.
        FormatError: a manifest can't be read, so nothing can be said of its version.
    """
    files = ((build, one) for one in store.list(DATASETS_ROOT) if (build := parse_build_key(one.key)))
    for version, of_version in groupby(files, key=lambda pair: pair[0][:2]):
        named = _named(store, *version)
        for (dataset, name, build_id), of_build in groupby(of_version, key=lambda pair: pair[0]):
            objects = tuple(one for _, one in of_build if one.key not in named)
            if objects:
                found = Garbage(dataset, name, build_id, objects)
                if now_s - found.modified_s >= age_min_s:
                    yield found


def _named(store: ObjectStore, dataset: str, version: str) -> set[str]:
    key = manifest_key(dataset, version)
    try:
        return {file.object_key for file in Manifest.from_json(store.get(key).data, key).files}
    except ObjectMissingError:
        return set()
