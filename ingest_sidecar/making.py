"""Making a version directory, within the ingest process.

For every shard: link the staged files, ingest them into a RocksDB of their own under `making/`, hold it against the manifest, remove the
slots of others, write VERSION.json, sync, publish by rename. Until then, all of it can be deleted. Where a shard only lost slots, its
published directory is copied by links instead, and those slots are removed from the copy.

What is held against the manifest: RocksDB's own list of files (first and last key, entries, deletes, bytes of each), and every byte. A file
that is the shard's as a whole stays the very file that the builder proved, so its SHA-256 vouches for order, counts, slots and content;
only a file that is written anew, because it holds slots of others too, is walked entry by entry before, and counted after.

A delta begins as a copy, by links, of the directory that it lies on, if that was made for the very slots of the shard: its files were
held against their manifests when it was made, which noted the SHA-256 of each, and every byte is held against that again. Else it begins
with the files of the full version, checked like any. Then every delta from there on is laid over (layering.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from ingest_sidecar.disk import copy_by_links, inode, note_sources, noted_sha256, publish
from ingest_sidecar.job import IngestBase, IngestFile, IngestJob, IngestShard
from ingest_sidecar.layering import Laid, Layer
from ingest_sidecar.reading import EntryWalk, sha256_of
from ingest_sidecar.rocks import HeldFile, VersionDatabase
from pipeline.format.crashpoints import IngestPoint, crash_point
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, IngestProcessError
from pipeline.format.keys import KIND_AT, Kind
from pipeline.format.layout import IDENTITY_FILE, SST_SUFFIX, ShardPaths
from pipeline.format.slots import SlotRange, slot_set, slots_without

Seen = Callable[[int], None]
"""Told how many more bytes are checked, about."""


def make_version(job: IngestJob, shard: IngestShard, seen: Seen) -> Counts:
    """Make and publish one shard's version directory, in place of one that is there; what it holds.

    Raises:
        ChecksumMismatchError, CountMismatchError: the files are not what the manifest says; nothing is published.
        DiskFullError, IngestProcessError: RocksDB or the operating system refused.
    """
    paths = ShardPaths(shard.data_dir)
    making = paths.unpublished(job.dataset, job.version, job.build_id)
    links = making.with_name(making.name + ".links")
    for leftover in (making, links):
        shutil.rmtree(leftover, ignore_errors=True)
        leftover.mkdir(parents=True)
    try:
        crash_point(IngestPoint.BEGUN)
        own = shard.layers[-1] if shard.layers else shard.files
        originals = {one.path: one.path.name if one in own else f"{one.path.parent.name}/{one.path.name}" for one in shard.all_files}
        if shard.trimmed:
            published = paths.version(job.dataset, job.version)
            copy_by_links(published, making)
            originals = {published / inside: name for inside, name in shard.originals.items()}
        filling = _Making(job, shard, making, seen)
        counts = filling.filled(links)
        if shard.base is not None:
            originals |= {shard.base.directory / inside: name for inside, name in shard.base.originals.items()}
        note_sources(making, originals, filling.sha256())
        identity = {**shard.identity, "keys": counts.keys, "entries": counts.entries, **counts.applied}
        publish(paths, making, job.dataset, job.version, json.dumps(identity, indent=1).encode() + b"\n")
    finally:
        for leftover in (making, links):
            shutil.rmtree(leftover, ignore_errors=True)
    return counts


class Counts:
    """What a version directory holds, of the shard's own slots; `applied` is what VERSION.json says of a delta beside it."""

    def __init__(self, slots: tuple[SlotRange, ...]) -> None:
        self._owned = slot_set(slots)
        self.slots_seen: set[int] = set()
        self.keys = 0
        self.entries = 0
        self.applied: dict[str, object] = {}

    def add_laid(self, laid: Laid) -> None:
        """Count what a delta changed; that of the last one stands beside."""
        self.keys += laid.more_keys
        self.entries += laid.more_entries
        self.applied = {"deletes": laid.deletes, "applied": {"keys": laid.keys, "entries": laid.entries}}

    def add_whole(self, file: IngestFile) -> None:
        """Count a file whose bytes are the build's, all of it own."""
        self.keys += file.keys
        self.entries += file.entries

    def add(self, keys: Sequence[bytes]) -> int:
        """Count entries; how many of them, own or not, are metas."""
        slots = {int.from_bytes(prefix) for prefix in {key[:KIND_AT] for key in keys}}
        self.slots_seen |= slots
        if slots <= self._owned:
            return self._add_own(keys)
        self._add_own([key for key in keys if int.from_bytes(key[:KIND_AT]) in self._owned])
        return _metas(keys)

    def _add_own(self, keys: Sequence[bytes]) -> int:
        metas = _metas(keys)
        self.entries += len(keys)
        self.keys += metas
        return metas


def _metas(keys: Sequence[bytes]) -> int:
    return [key[KIND_AT] for key in keys].count(Kind.META)


class _Making:
    """One shard's directory while it is filled and checked."""

    def __init__(self, job: IngestJob, shard: IngestShard, making: Path, seen: Seen) -> None:
        self._job, self._shard, self._making, self._seen = job, shard, making, seen
        self._proven: dict[str, IngestFile] = {}  # by name: files of the build as they are, whose bytes were hashed
        trimmed = ShardPaths(shard.data_dir).version(job.dataset, job.version)
        self._noted = noted_sha256(trimmed) if shard.trimmed else {}  # by name: what was known of files that were copied

    def filled(self, links: Path) -> Counts:
        """Fill it from links made in `links`, and check it; what it holds."""
        based = self._copied(self._shard.base) if self._shard.base else None
        with self._opened() as database:
            if self._shard.files:
                database.ingest([_linked(one, links) for one in self._shard.files])
            crash_point(IngestPoint.FILLED)
            counts = based or (self._counted(database) if self._shard.trimmed else self._checked(database))
            crash_point(IngestPoint.CHECKED)
            foreign = [one for one in slots_without(self._shard.slots) if any(slot in one for slot in counts.slots_seen)]
            if foreign:
                database.drop_slots(foreign)
                self._check_dropped(counts, self._counted(database))
                crash_point(IngestPoint.DROPPED)
            for number, files in enumerate(self._shard.layers):
                layer = Layer(database, self._shard, files, links / str(number), self._seen, self._where, self._fields())
                counts.add_laid(layer.lay())
                crash_point(IngestPoint.LAID)
        return counts

    def _copied(self, base: IngestBase) -> Counts:
        """Begin as a copy of the base's directory, by links; what that holds."""
        before, held = _stamp(base.directory), json.loads((base.directory / IDENTITY_FILE).read_bytes())
        self._noted = noted_sha256(base.directory)
        copy_by_links(base.directory, self._making)
        slots = slot_set(SlotRange(**one) for one in held["slots"])
        if (held["build_id"], slots) != (base.build_id, slot_set(self._shard.slots)) or _stamp(base.directory) != before:
            raise IngestProcessError(f"the base of {self._where} was just replaced: tried again", **self._fields())
        for name, expected in self._noted.items():
            self._check_copied(base, name, expected)
        counts = Counts(self._shard.slots)
        counts.keys, counts.entries = held["keys"], held["entries"]
        return counts

    def _check_copied(self, base: IngestBase, name: str, expected: str | None) -> None:
        """A file that the base's directory and this one share, read once more."""
        found = sha256_of(self._making / name, self._seen)
        if found != expected:
            message = (
                f"{base.directory / name}, which {self._where} begins with, has SHA-256 {found}, {expected} is what it was made with: "
                "the bytes changed on this node's disk after they were verified"
            )
            fields = {"copy": str(base.directory / name), **({"object": base.objects[name]} if name in base.objects else {})}
            raise ChecksumMismatchError(message, **self._fields(), **fields, found=found, expected=expected)

    def sha256(self) -> dict[str, str]:
        """Of every file that is there, by name: as it was noted or promised; what was written here is read once for it."""
        promised = {inode(one.path): one.sha256 for one in self._shard.all_files}
        found = {}
        for path in self._making.glob(f"*{SST_SUFFIX}"):
            noted = self._noted[path.name] if path.name in self._noted else promised.get(inode(path)) or sha256_of(path, self._seen)
            if noted is not None:
                found[path.name] = noted
        return found

    def _opened(self) -> VersionDatabase:
        try:
            return VersionDatabase(self._making)
        except IngestProcessError as refused:
            if self._shard.base is None:
                raise
            message = f"{self._shard.base.directory}, which {self._where} begins with, can't be opened: its files are fetched again"
            raise ChecksumMismatchError(f"{message} ({refused})", **self._fields()) from refused

    def _checked(self, database: VersionDatabase) -> Counts:
        counts = Counts(self._shard.slots)
        held = database.files()
        if len(held) != len(self._shard.files):
            message = f"{self._where} holds {len(held)} files, the manifest has {len(self._shard.files)} for it"
            raise CountMismatchError(message, **self._fields())
        for one, file in zip(held, self._shard.files, strict=True):
            self._check_listed(one, file)
            if self._shard.holds(file):
                self._check_bytes(one.name, file)
                counts.add_whole(file)
                self._proven[one.name] = file
            else:
                self._check_entries(database, file, counts)
        return counts

    def _check_listed(self, held: HeldFile, file: IngestFile) -> None:
        found = (held.smallest, held.largest, held.entries, held.deletes, held.size)
        if found == (file.smallest, file.largest, file.entries + file.deletes, file.deletes, file.size):
            return
        message = (
            f"{file.object_key} in {self._where} has {held.entries - held.deletes} entries, {held.deletes} deletes and {held.size} bytes "
            f"from {held.smallest!r} to {held.largest!r}, the manifest says {file.entries}, {file.deletes} and {file.size} from "
            f"{file.smallest!r} to {file.largest!r}"
        )
        raise CountMismatchError(message, **self._fields(file))

    def _check_bytes(self, name: str, file: IngestFile) -> None:
        """The file that readers will have, read from the disk or its cache once more."""
        found = sha256_of(self._making / name, self._seen)
        if found != file.sha256:
            message = (
                f"{file.object_key} in {self._where} has SHA-256 {found}, the manifest says {file.sha256}: "
                "the bytes changed on this node's disk after they were verified"
            )
            raise ChecksumMismatchError(message, **self._fields(file), found=found, expected=file.sha256)

    def _check_entries(self, database: VersionDatabase, file: IngestFile, counts: Counts) -> None:
        digest, found, metas = ContentDigest(), 0, 0
        for keys, values in EntryWalk(database.entries(file.smallest)).up_to(file.largest):
            digest.update(keys, values)
            found += len(keys)
            metas += counts.add(keys)
            self._seen(len(keys) * file.size // file.entries)
        if (found, metas) != (file.entries, file.keys):
            message = (
                f"{file.object_key} in {self._where} holds {found} entries of {metas} keys, the manifest says {file.entries} of {file.keys}"
            )
            raise CountMismatchError(message, **self._fields(file))
        if digest.hexdigest() != file.content_digest:
            message = f"{file.object_key} in {self._where} has another content digest than the manifest says"
            raise ChecksumMismatchError(message, **self._fields(file))

    def _counted(self, database: VersionDatabase) -> Counts:
        """What is held by files that were proven before, and all entries of the others."""
        counts = Counts(self._shard.slots)
        files = database.files()
        if any(before.largest >= after.smallest for before, after in pairwise(files)):  # deltas: what is read is what counts
            for keys, _ in EntryWalk(database.entries()).up_to(None):
                counts.add(keys)
                self._seen(len(keys))
            return counts
        for one in files:
            if one.name in self._proven:
                counts.add_whole(self._proven[one.name])
                continue
            for keys, _ in EntryWalk(database.entries(one.smallest)).up_to(one.largest):
                counts.add(keys)
                self._seen(len(keys) * one.size // one.entries)
        return counts

    def _check_dropped(self, before: Counts, after: Counts) -> None:
        if (after.keys, after.entries) != (before.keys, before.entries) or after.slots_seen - slot_set(self._shard.slots):
            message = (
                f"after foreign slots were removed, {self._where} holds {after.entries} entries of {after.keys} keys; "
                f"{before.entries} of {before.keys} are its own"
            )
            raise CountMismatchError(message, **self._fields())

    @property
    def _where(self) -> str:
        return f"{self._job.dataset} {self._job.version} on {self._job.node}, shard {self._shard.name},"

    def _fields(self, file: IngestFile | None = None) -> dict[str, str]:
        job = self._job
        fields = {"dataset": job.dataset, "version": job.version, "node": job.node, "shard": self._shard.name}
        return {**fields, "object": file.object_key} if file else fields


def _stamp(directory: Path) -> tuple[int, int]:
    """What tells a published directory from another one of its name."""
    return inode(directory / IDENTITY_FILE)


def _linked(one: IngestFile, links: Path) -> Path:
    link = links / one.path.name
    os.link(one.path, link)
    return link
