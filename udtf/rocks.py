"""RocksDB in the build job: SST files, and databases that live as long as a task. The only module of the job that imports rocksdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
    WriteOptions,
)

from pipeline.format.errors import IntegrityError

BLOOM_BITS_PER_KEY = 10  # 1 % false positives, RocksDB's usual choice: a read of an absent key touches no data block
BLOCK_BYTES = 4 << 10  # RocksDB's default; point reads, not scans, are what the shards serve
SCRATCH_BUFFER_BYTES = 64 << 20  # of a scratch database's entries that wait in memory: what bounds a task whatever a key holds
BATCH_ENTRIES = 1024  # entries of one write


def sst_writer(path: Path) -> SstFileWriter:
    """A writer of one file, as the shards want it."""
    table = BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    table.set_block_size(BLOCK_BYTES)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    # LZ4: a block is unpacked on every read that misses the cache, and LZ4 does it several times faster than zstd for 10-20 % more bytes
    options.set_compression_type(DBCompressionType.lz4())
    writer = SstFileWriter(options)
    writer.open(str(path))
    return writer


class SstReader:
    """One file as RocksDB reads it: which keys it has, and its entries in order. A context manager.

    RocksDB has no reader for single files here, so `link`, a hard link that goes, is moved into a database of its own in `folder`.

    Raises:
        IntegrityError: RocksDB can't read it.
    """

    def __init__(self, link: Path, folder: Path) -> None:
        table = BlockBasedOptions()
        table.disable_cache()  # every block is read once
        options = Options(raw_mode=True)
        options.set_block_based_table_factory(table)
        options.set_allow_mmap_reads(True)
        options.create_if_missing(True)
        options.set_disable_auto_compactions(True)
        self._database = Rdict(str(folder), options=options)
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        try:
            self._database.ingest_external_file([str(link)], moving)
            (file,) = self._database.live_files()
        except BaseException as refused:
            self._database.close()
            if type(refused) is Exception:  # all that rocksdict ever says
                raise IntegrityError(f"RocksDB can't read {link.name}: {refused}", file=link.name) from refused
            raise
        self.smallest, self.largest = cast("tuple[bytes, bytes]", (file["start_key"], file["end_key"]))
        self.entries = cast("int", file["num_entries"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries; block checksums are verified."""
        return cast("Iterator[tuple[bytes, bytes]]", iter(self._database.items()))  # raw mode gives bytes


class LayeredReader:
    """Files of versions that lie on each other, read as one: what a reader of the last one gets. A context manager.

    Raises:
        IntegrityError: RocksDB can't read them.
    """

    def __init__(self, folder: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_disable_auto_compactions(True)
        self._database = Rdict(str(folder), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()

    def lay(self, puts: Sequence[Path], deletes: Iterable[bytes]) -> None:
        """Lay a version over what is there; its files go."""
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        try:
            batch = WriteBatch(raw_mode=True)
            for key in deletes:
                batch.delete(key)
            self._database.write(batch)
            if puts:
                self._database.ingest_external_file([str(one) for one in puts], moving)
        except Exception as refused:  # rocksdict raises bare Exception
            raise IntegrityError(f"RocksDB can't read the files of a base: {refused}") from refused

    def entries(self, first: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """The entries from `first` to before `end`, or to the last one."""
        for key, value in cast("Iterator[tuple[bytes, bytes]]", self._database.items(from_key=cast("Any", first))):
            if end is not None and key >= end:
                return
            yield key, value


class Scratch:
    """A database in which a task keeps what it may not keep in memory, opened when it is first written to. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database: Rdict | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._database is not None:
            self._database.close()
            Rdict.destroy(str(self._folder))

    def put(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        """Keep entries; how many there were."""
        database = self._opened()
        count = 0
        batch = WriteBatch(raw_mode=True)
        for key, value in entries:
            batch.put(key, value)
            count += 1
            if count % BATCH_ENTRIES == 0:
                database.write(batch, self._unlogged)
                batch = WriteBatch(raw_mode=True)
        database.write(batch, self._unlogged)
        return count

    def entries_of(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The entries whose keys begin with `start`, in order."""
        if self._database is None:
            return
        for key, value in cast("Iterator[tuple[bytes, bytes]]", self._database.items(from_key=cast("Any", start))):
            if not key.startswith(start):
                return
            yield key, value

    def _opened(self) -> Rdict:
        if self._database is None:
            options = Options(raw_mode=True)
            options.create_if_missing(True)
            options.set_write_buffer_size(SCRATCH_BUFFER_BYTES)
            options.set_disable_auto_compactions(True)  # read once: merging files first would cost more
            options.set_compression_type(DBCompressionType.lz4())
            self._database = Rdict(str(self._folder), options=options, access_type=AccessType.read_write())
            self._unlogged = WriteOptions()
            self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, whatever its stub says
        return self._database
