"""The ingest job: what the sidecar hands to its ingest process, as one line of JSON.

Plain records, parsed by hand: that process lives for a fraction of a second, most of which importing a model library would take. Both
sides are always of one release; what is stored or crosses machines is validated elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.format.keys import parse_key
from pipeline.format.slots import SlotRange

if TYPE_CHECKING:
    from pipeline.format.manifest import ManifestFile

LINKED_BYTES_MIN = 16 << 20  # of a delta's file: a quarter of what a build cuts files at, so that linked ones are few for what they hold


@dataclass(frozen=True, slots=True)
class IngestFile:
    """A staged file, and what the manifest says of it (pipeline/format/manifest.py)."""

    path: Path
    object_key: str
    smallest: bytes
    largest: bytes
    keys: int
    entries: int
    deletes: int
    size: int
    sha256: str
    content_digest: str

    @classmethod
    def of(cls, path: Path, file: ManifestFile) -> Self:
        """A file of a manifest, staged at `path`."""
        return cls(
            path,
            file.object_key,
            file.smallest,
            file.largest,
            file.keys,
            file.entries,
            file.deletes,
            file.bytes,
            file.sha256,
            file.content_digest,
        )

    @property
    def span(self) -> SlotRange:
        """The slots of its first and last key."""
        return SlotRange(first=parse_key(self.smallest).slot, last=parse_key(self.largest).slot)


@dataclass(frozen=True, slots=True)
class IngestBase:
    """The published directory of a version that a delta lies on, made for the very slots of its shard, and the bytes of its files.
    `originals` are the names of those of its files that still are a build's, `objects` what these are in the object store.
    """

    directory: Path
    build_id: str
    size: int
    originals: Mapping[str, str]
    objects: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IngestShard:
    """What one shard needs: its data directory, its slots, its files in key order, and VERSION.json but for the counts.

    A delta begins as a copy of a `base`, or with the files of the full version that it lies on; `layers` are the files of the deltas from
    there on, its own last.

    Without files, where its published directory has all slots and more, it is `trimmed` to them; `originals` are then the names in the
    build of those of that directory's files that still are the build's.
    """

    name: str
    data_dir: Path
    slots: tuple[SlotRange, ...]
    identity: Mapping[str, Any]
    files: tuple[IngestFile, ...] = ()
    base: IngestBase | None = None
    layers: tuple[tuple[IngestFile, ...], ...] = ()
    trimmed: bool = False
    originals: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_files(self) -> tuple[IngestFile, ...]:
        """Its files, those of all layers."""
        return tuple(chain(self.files, *self.layers))

    def holds(self, file: IngestFile) -> bool:
        """Whether all of a file is this shard's, so that it becomes part of the version as it is."""
        span = file.span
        return any(one.covers(span) for one in self.slots)


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What one ingest process does: version directories, or what an upsert needs; `aside`: on CPUs that nobody else wants (priority.py)."""

    dataset: str
    version: str
    build_id: str
    node: str
    shards: tuple[IngestShard, ...]
    upsert: bool = False
    aside: bool = False

    def to_line(self) -> bytes:
        """As JSON, with the end of the line."""
        return json.dumps(asdict(self), default=_plain).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """What `to_line` made."""
        raw = json.loads(line)
        return cls(**{**raw, "shards": tuple(map(_shard, raw["shards"]))})


def _shard(raw: dict[str, Any]) -> IngestShard:
    slots = tuple(SlotRange(**one) for one in raw["slots"])
    files, layers = tuple(map(_file, raw["files"])), tuple(tuple(map(_file, layer)) for layer in raw["layers"])
    base = IngestBase(**{**raw["base"], "directory": Path(raw["base"]["directory"])}) if raw["base"] else None
    more = {"data_dir": Path(raw["data_dir"]), "slots": slots, "files": files, "layers": layers, "base": base}
    return IngestShard(**{**raw, **more})


def _file(raw: dict[str, Any]) -> IngestFile:
    ends = {name: bytes.fromhex(raw[name]) for name in ("smallest", "largest")}
    return IngestFile(**{**raw, **ends, "path": Path(raw["path"])})


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
