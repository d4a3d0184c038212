"""What a node needs of a version: which files, how many bytes, for which shards. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ingest_sidecar.job import LINKED_BYTES_MIN
from pipeline.format.errors import DiskFullError, FormatError
from pipeline.format.manifest import Manifest, ManifestFile
from pipeline.format.slots import SlotRange, slot_set
from pipeline.format.units import file_span

Slots = tuple[SlotRange, ...]

DISK_RESERVE_BYTES = 256 << 20  # RocksDB's logs and manifests, and the shards' own writes: a full disk stops them too


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file that this node needs, and its name once staged."""

    file: ManifestFile
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of the node, and per shard its slots and the names of its files; smaller ones than `linked_bytes_min` are not linked."""

    files: tuple[PlannedFile, ...]
    shards: Mapping[str, tuple[Slots, tuple[str, ...]]]
    linked_bytes_min: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(one.file.bytes for one in self.files)

    @property
    def rewritten_bytes(self) -> int:
        """Bytes of the files that hold others' slots too, or deletes, or are small ones of a delta: once for every shard that writes its
        part of them anew.
        """
        files = {one.name: one.file for one in self.files}
        wanted = [(slots, files[name]) for slots, names in self.shards.values() for name in names]
        return sum(
            file.bytes
            for slots, file in wanted
            if file.deletes or file.bytes < self.linked_bytes_min or not _within(file_span(file), slots)
        )


def plan(manifest: Manifest, held: Mapping[str, Slots]) -> Plan:
    """The files whose slots this node's shards hold, by owning them or as replicas; `held` gives each shard's slots.

    Raises:
        FormatError: two files of the manifest have the same name.
    """
    names = {file.object_key: PurePosixPath(file.object_key).name for file in manifest.files}
    if len(set(names.values())) != len(names):
        raise FormatError(f"the manifest of {manifest.dataset} {manifest.version} names two files alike", dataset=manifest.dataset)
    shards = {
        shard: (slots, tuple(names[file.object_key] for file in manifest.files if _holds(file, slots))) for shard, slots in held.items()
    }
    wanted = {name for _, files in shards.values() for name in files}
    files = tuple(PlannedFile(file, names[file.object_key]) for file in manifest.files if names[file.object_key] in wanted)
    return Plan(files, shards, LINKED_BYTES_MIN if manifest.bases else 0)


def _holds(file: ManifestFile, slots: Slots) -> bool:
    """Whether a file may hold keys of these slots: by its own first and last key, which is closer than its slot partition."""
    span = file_span(file)
    return any(one.overlaps(span) for one in slots)


def _within(span: SlotRange, slots: Slots) -> bool:
    return any(one.covers(span) for one in slots)


def covered(wanted: Slots, held: Slots) -> bool:
    """Whether all wanted slots are among the held ones."""
    return wanted == held or slot_set(wanted) <= slot_set(held)


def exact(wanted: Slots, held: Slots) -> bool:
    """Whether the held slots are the wanted ones, no more and no less."""
    return wanted == held or slot_set(wanted) == slot_set(held)


def check_disk(needed_bytes: int, free_bytes: int, node: str, what: str) -> None:
    """Whether a download fits; what is staged becomes part of the version by links, so nothing counts twice.

    Raises:
        DiskFullError: it does not.
    """
    if needed_bytes + DISK_RESERVE_BYTES > free_bytes:
        message = (
            f"{what} needs {needed_bytes} bytes on {node} and {DISK_RESERVE_BYTES} in reserve, {free_bytes} are free: "
            f"free space there, it goes on by itself"
        )
        raise DiskFullError(message, node=node, needed=needed_bytes, free=free_bytes)


def still_missing(files: Sequence[PlannedFile], staged_bytes: Mapping[str, int]) -> int:
    """Bytes to download, given how many bytes of each name are there."""
    return sum(max(0, one.file.bytes - staged_bytes.get(one.name, 0)) for one in files)
