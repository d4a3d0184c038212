"""What an upsert needs of a version on one shard: SST files with its own slots' rows alone, published, for the shard to take in.

Rules:
- A staged file that lies wholly in the shard's slots, and deletes nothing, is linked: its SHA-256 vouches for it, as in worker.py.
- Every other one is written anew: without others' slots, which would be foreign keys in the live database, and with tombstones for the
  deletes, which stand in a build's files as metas without a value (docs/format.md). It is walked entry by entry, held against the
  manifest, and what was written is counted again.
- FILES.json names what was published, since files leave the directory as they go over into the live database.
- The files of every preparation have names of their own: a shard may still be busy with a call of an earlier one, whose note is of other
  slots. It finds its files gone, and takes in nothing, instead of these.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from ingest_sidecar.disk import note_files, note_sources, publish
from ingest_sidecar.job import IngestFile, IngestJob, IngestShard
from ingest_sidecar.reading import EntryWalk, sha256_of
from ingest_sidecar.rocks import SstWriter, VersionDatabase
from pipeline.format.crashpoints import IngestPoint, crash_point
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError
from pipeline.format.keys import KIND_AT, Kind
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import slot_set

Seen = Callable[[int], None]
"""Told how many more bytes are checked, about."""


def prepare_upsert(job: IngestJob, shard: IngestShard, seen: Seen) -> Counts:
    """Prepare and publish one shard's files, in place of what is there; what they hold.

    Raises:
        ChecksumMismatchError, CountMismatchError: the files are not what the manifest says; nothing is published.
        DiskFullError, IngestProcessError: RocksDB or the operating system refused.
    """
    paths = ShardPaths(shard.data_dir)
    making = paths.unpublished(job.dataset, job.version, job.build_id)
    scratch = making.with_name(making.name + ".scratch")
    for leftover in (making, scratch):
        shutil.rmtree(leftover, ignore_errors=True)
        leftover.mkdir(parents=True)
    try:
        crash_point(IngestPoint.BEGUN)
        preparing = _Preparing(job, shard, making, scratch, seen)
        own = preparing.filled()
        note_sources(making, {one.path: one.path.name for one in shard.files}, {})
        note_files(making, {preparing.inside(one).name: one.path.name for one in shard.files})
        identity = {**shard.identity, "keys": own.keys, "entries": own.entries, "deletes": own.deletes}
        publish(paths, making, job.dataset, job.version, json.dumps(identity, indent=1).encode() + b"\n")
    finally:
        for leftover in (making, scratch):
            shutil.rmtree(leftover, ignore_errors=True)
    return own


class Counts:
    """Keys that are put, entries that are, and keys that are deleted."""

    def __init__(self) -> None:
        self.keys = self.entries = self.deletes = 0

    def __str__(self) -> str:
        return f"{self.entries} entries of {self.keys} keys and {self.deletes} deletes"

    def add(self, keys: Sequence[bytes], deletes: int) -> None:
        """Count entries, so many of which are deletes."""
        self.keys += [key[KIND_AT] for key in keys].count(Kind.META) - deletes
        self.entries += len(keys) - deletes
        self.deletes += deletes

    def add_whole(self, file: IngestFile) -> None:
        """Count all of a file."""
        self.keys += file.keys
        self.entries += file.entries


class _Preparing:
    """One shard's directory while it is filled: `own` counts its rows, `anew` those of the files that are written anew."""

    def __init__(self, job: IngestJob, shard: IngestShard, making: Path, scratch: Path, seen: Seen) -> None:
        self._job, self._shard, self._making, self._scratch, self._seen = job, shard, making, scratch, seen
        self._slots = slot_set(shard.slots)
        self._token = uuid4().hex
        self._own, self._anew = Counts(), Counts()

    def filled(self) -> Counts:
        """Link or write every file; what they hold of the shard's slots."""
        rewritten = [one for one in self._shard.files if one.deletes or not self._shard.holds(one)]
        with self._database("read", [one.path for one in rewritten]) as database:
            crash_point(IngestPoint.FILLED)
            written = [path for one in rewritten if (path := self._written(database, one)) is not None]
        for one in self._shard.files:
            if one not in rewritten:
                self._link(one)
        crash_point(IngestPoint.CHECKED)
        self._check_written(written)
        crash_point(IngestPoint.DROPPED)
        return self._own

    def inside(self, file: IngestFile) -> Path:
        """Where a file's rows lie in the directory, if there are any."""
        return self._making / f"{self._token}-{file.path.name}"

    def _link(self, file: IngestFile) -> None:
        os.link(file.path, self.inside(file))
        found = sha256_of(self.inside(file), self._seen)
        if found != file.sha256:
            message = (
                f"{file.object_key} in {self._where} has SHA-256 {found}, the manifest says {file.sha256}: "
                "the bytes changed on this node's disk after they were verified"
            )
            raise ChecksumMismatchError(message, **self._fields(file), found=found, expected=file.sha256)
        self._own.add_whole(file)

    def _written(self, database: VersionDatabase, file: IngestFile) -> Path | None:
        """Write the shard's part of a file; None if there is none."""
        writer = SstWriter(self.inside(file))
        digest, found = ContentDigest(), Counts()
        for keys, raw in EntryWalk(database.entries(file.smallest)).up_to(file.largest):
            values = _with_deletes(keys, raw) if file.deletes else list[bytes | None](raw)
            digest.update(keys, values)
            found.add(keys, values.count(None))
            own = [one for one in zip(keys, values, strict=True) if int.from_bytes(one[0][:KIND_AT]) in self._slots]
            writer.add(own)
            for counts in (self._own, self._anew):
                counts.add([key for key, _ in own], [value for _, value in own].count(None))
            self._seen(len(keys) * file.size // (file.entries + file.deletes))
        if (found.keys, found.entries, found.deletes) != (file.keys, file.entries, file.deletes):
            promised = f"{file.entries} of {file.keys} and {file.deletes}"
            raise CountMismatchError(
                f"{file.object_key} in {self._where} holds {found}, the manifest says {promised}", **self._fields(file)
            )
        if digest.hexdigest() != file.content_digest:
            message = f"{file.object_key} in {self._where} has another content digest than the manifest says"
            raise ChecksumMismatchError(message, **self._fields(file))
        return writer.path if writer.finish() else None

    def _check_written(self, written: list[Path]) -> None:
        """Read back what was written anew."""
        found = Counts()
        with self._database("again", written) as database:
            for keys, _ in EntryWalk(database.entries()).up_to(None):
                found.add(keys, 0)
            found.deletes = sum(one.deletes for one in database.files())
        if str(found) != str(self._anew):
            message = f"what was written anew for {self._where} reads back as {found}, not as {self._anew}"
            raise CountMismatchError(message, **self._fields())

    def _database(self, name: str, files: Sequence[Path]) -> VersionDatabase:
        """A database of some files, by links."""
        links = self._scratch / f"{name}.links"
        links.mkdir()
        database = VersionDatabase(self._scratch / name)
        if files:
            for path in files:
                os.link(path, links / path.name)
            database.ingest([links / path.name for path in files])
        return database

    @property
    def _where(self) -> str:
        return f"{self._job.dataset} {self._job.version} on {self._job.node}, shard {self._shard.name},"

    def _fields(self, file: IngestFile | None = None) -> dict[str, str]:
        job = self._job
        fields = {"dataset": job.dataset, "version": job.version, "node": job.node, "shard": self._shard.name}
        return {**fields, "object": file.object_key} if file else fields


def _with_deletes(keys: Sequence[bytes], values: Sequence[bytes]) -> list[bytes | None]:
    return [value if value or key[KIND_AT] != Kind.META else None for key, value in zip(keys, values, strict=True)]
