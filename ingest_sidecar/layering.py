"""Laying a delta over what a version directory holds, before it is published: puts and deletes, in one call of ingest.

Rules:
- Every file of the delta is walked and held against the manifest, whatever slots it has: counts and content digest.
- A large file of puts that lies wholly in the shard's slots, or the only one, goes in by a link. Of all others the shard's part is written
  anew, one after the other into one file: a build's tasks leave hundreds of small ones, and a read may have to look into each that lies
  over the base. Deletes become tombstones: a build's file names the keys that go, since RocksDB shows nobody where a tombstone stands.
- Nothing of the base is read but the delta's own keys: whether each was there says what the directory holds afterwards, by number; and each
  is looked up once more after the ingest, so that what a reader gets is what the delta says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest_sidecar.job import LINKED_BYTES_MIN, IngestFile, IngestShard
from ingest_sidecar.reading import EntryWalk, sha256_of
from ingest_sidecar.rocks import SstWriter, VersionDatabase
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError
from pipeline.format.keys import KIND_AT, Kind
from pipeline.format.layout import SST_SUFFIX
from pipeline.format.slots import slot_set

WRITTEN_RAW_BYTES = 64 << 20  # cut a file that is written anew at so many bytes before compression, as a build does

Batch = tuple[list[bytes], list[bytes | None]]
"""Keys and their values, None where a key is deleted."""


@dataclass(slots=True)
class Laid:
    """What a delta did to a directory: what it put and deleted, and by how much keys and entries became more, or fewer."""

    keys: int = 0
    entries: int = 0
    deletes: int = 0
    more_keys: int = 0
    more_entries: int = 0


class Layer:
    """One delta over a directory. `scratch` is a folder of its own that goes; `where` and `fields` tell errors which directory it is."""

    def __init__(
        self,
        database: VersionDatabase,
        shard: IngestShard,
        files: Sequence[IngestFile],
        scratch: Path,
        seen: Callable[[int], None],
        where: str,
        fields: dict[str, str],
    ) -> None:
        self._database, self._shard, self._files, self._scratch, self._seen = database, shard, files, scratch, seen
        self._where, self._fields = where, fields
        self._slots = slot_set(shard.slots)

    def lay(self) -> Laid:
        """Bring it in; what it did.

        Raises:
            ChecksumMismatchError, CountMismatchError: a file, or what is read after the ingest, is not what the manifest says.
        """
        laid = Laid()
        with self._read("puts", deleting=False) as puts, self._read("deletes", deleting=True) as deletes:
            moved = self._prepared(puts, "puts", self._of_sort(deleting=False), laid)
            moved += self._prepared(deletes, "deletes", self._of_sort(deleting=True), laid)
            if moved:
                self._database.ingest(moved)
            for one in self._files:
                for batch in self._own_batches(deletes if one.deletes else puts, one):
                    self._check_laid(one, batch)
        return laid

    def _read(self, name: str, *, deleting: bool) -> VersionDatabase:
        """A database of the files of one sort, by links."""
        links = self._scratch / f"{name}.links"
        links.mkdir(parents=True)
        database = VersionDatabase(self._scratch / name)
        files = self._of_sort(deleting=deleting)
        for one in files:
            os.link(one.path, links / one.path.name)
        try:
            if files:
                database.ingest([links / one.path.name for one in files])
        except ChecksumMismatchError as broken:
            changed = next((one for one in files if sha256_of(one.path, self._seen) != one.sha256), None)
            if changed is None:
                raise
            raise self._unreadable(changed, broken) from broken
        return database

    def _batches(self, read: VersionDatabase, file: IngestFile) -> Iterator[Batch]:
        """Its entries; there are two passes, so half of the bytes count in each."""
        try:
            for keys, values in EntryWalk(read.entries(file.smallest)).up_to(file.largest):
                yield list(keys), [None] * len(keys) if file.deletes else list(values)
                self._seen(len(keys) * file.size // (2 * (file.entries + file.deletes)))
        except ChecksumMismatchError as broken:
            raise self._unreadable(file, broken) from broken

    def _unreadable(self, file: IngestFile, broken: ChecksumMismatchError) -> ChecksumMismatchError:
        message = f"{file.object_key} in {self._where} can't be read: {broken.message}"
        return ChecksumMismatchError(message, **self._fields, object=file.object_key)

    def _of_sort(self, *, deleting: bool) -> list[IngestFile]:
        return [one for one in self._files if bool(one.deletes) is deleting]

    def _prepared(self, read: VersionDatabase, name: str, files: Sequence[IngestFile], laid: Laid) -> list[Path]:
        """Walk all files of one sort, in key order; what of them is to be ingested: links, and the shard's parts written anew."""
        written = _Written(self._scratch, name)
        for file in files:
            if file.deletes or not self._shard.holds(file) or (file.size < LINKED_BYTES_MIN and len(files) > 1):
                self._walk(read, file, laid, written.add)
                continue
            self._walk(read, file, laid, lambda _: None)
            path = self._scratch / file.path.name
            os.link(file.path, path)
            written.put_between(path)
        return written.finish()

    def _walk(self, read: VersionDatabase, file: IngestFile, laid: Laid, own_part: Callable[[Batch], None]) -> None:
        """Hold a file against the manifest, and hand out the shard's part of it."""
        digest, entries, metas = ContentDigest(), 0, 0
        for keys, values in self._batches(read, file):
            digest.update(keys, values)
            entries += len(keys)
            metas += _metas(keys)
            own = self._own(keys, values)
            self._count(own, laid)
            own_part(own)
        promised = (file.deletes, None) if file.deletes else (file.entries, file.keys)
        if (entries, None if file.deletes else metas) != promised:
            raise CountMismatchError(
                f"{file.object_key} in {self._where} holds {entries} entries of {metas} keys, the manifest says "
                f"{file.entries} of {file.keys} and {file.deletes} deletes",
                **self._fields,
                object=file.object_key,
            )
        if digest.hexdigest() != file.content_digest:
            message = f"{file.object_key} in {self._where} has another content digest than the manifest says"
            raise ChecksumMismatchError(message, **self._fields, object=file.object_key)

    def _own_batches(self, read: VersionDatabase, file: IngestFile) -> Iterator[Batch]:
        return (self._own(keys, values) for keys, values in self._batches(read, file))

    def _own(self, keys: list[bytes], values: list[bytes | None]) -> Batch:
        """The entries of the shard's slots."""
        if {int.from_bytes(prefix) for prefix in {key[:KIND_AT] for key in keys}} <= self._slots:
            return keys, values
        own = [at for at, key in enumerate(keys) if int.from_bytes(key[:KIND_AT]) in self._slots]
        return [keys[at] for at in own], [values[at] for at in own]

    def _count(self, batch: Batch, laid: Laid) -> None:
        """What entries will change; they are not in yet."""
        keys, values = batch
        if not keys:
            return
        there = [key for key, value in zip(keys, self._database.values(keys), strict=True) if value is not None]
        if values[0] is None:  # a file has one sort alone
            laid.deletes += len(keys)
            laid.more_entries -= len(there)
            laid.more_keys -= _metas(there)
            return
        metas = _metas(keys)
        laid.entries += len(keys)
        laid.keys += metas
        laid.more_entries += len(keys) - len(there)
        laid.more_keys += metas - _metas(there)

    def _check_laid(self, file: IngestFile, batch: Batch) -> None:
        keys, values = batch
        if keys and self._database.values(keys) != values:
            message = f"{self._where} does not read back what {file.object_key} put and deleted there"
            raise ChecksumMismatchError(message, **self._fields, object=file.object_key)


class _Written:
    """Entries of one sort written anew in `folder`, in key order, in as few files as their size allows."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._paths: list[Path] = []
        self._writer: SstWriter | None = None
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """Append entries."""
        keys, values = batch
        if not keys:
            return
        if self._writer is None:
            self._writer = SstWriter(self._folder / f"{self._name}-{len(self._paths)}{SST_SUFFIX}")
        self._writer.add(zip(keys, values, strict=True))
        self._bytes += sum(map(len, keys)) + sum(len(value) for value in values if value)
        if self._bytes >= WRITTEN_RAW_BYTES:
            self._cut()

    def put_between(self, path: Path) -> None:
        """Let a ready file follow: what comes after it goes into another one."""
        self._cut()
        self._paths.append(path)

    def finish(self) -> list[Path]:
        """All files."""
        self._cut()
        return self._paths

    def _cut(self) -> None:
        if self._writer is not None:
            self._writer.finish()
            self._paths.append(self._writer.path)
        self._writer, self._bytes = None, 0


def _metas(keys: Sequence[bytes]) -> int:
    return [key[KIND_AT] for key in keys].count(Kind.META)
