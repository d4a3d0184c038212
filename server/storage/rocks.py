"""RocksDB. The only module of the server that imports rocksdict.

Rules:
- Keys and values are bytes (raw mode); there is one column family.
- All databases of a process share one block cache, which bounds the memory of data blocks. Index and filter blocks stay with the open
  tables: reading them through the cache costs every GET about a microsecond.
- A version directory is opened read-only with all its files, so that its directory entries may go while a reader still holds it.
- Options of the column family are passed on opening: without them, rocksdict takes those that the directory was made with, its own block
  cache of 8 MiB among them.
- A foreign exception becomes a NodeError that names the directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    CompactOptions,
    DBCompressionType,
    DBRecoveryMode,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
    WriteBatch,
    WriteOptions,
)

from pipeline.format.errors import NodeError

BLOOM_BITS_PER_KEY = 10  # RocksDB's usual choice: about 1 % of reads of absent keys touch a data block
BLOCK_BYTES = 4 << 10  # RocksDB's default: point reads, not scans, are what this serves
INFO_LOGS_KEPT = 4
INFO_LOG_BYTES_MAX = 4 << 20
BACKGROUND_JOBS_MAX = 2  # flushes and compactions run beside the event loop, and several shards share a machine

LEVEL0_FILES = "rocksdb.num-files-at-level0"  # names of RocksDB's properties
COMPACTION_BYTES = "rocksdb.estimate-pending-compaction-bytes"

_LOCKED = "While lock file"  # how RocksDB words that somebody else has a database open
_HITS = re.compile(r"^rocksdb\.block\.cache\.data\.hit COUNT : (\d+)$", re.MULTILINE)
_MISSES = re.compile(r"^rocksdb\.block\.cache\.data\.miss COUNT : (\d+)$", re.MULTILINE)

_Found = TypeVar("_Found")


class BlockCache:
    """The block cache that all databases of a process share, and the options that they are opened with, as these count its hits.

    Counting costs a read some tenths of a microsecond.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._cache = Cache(capacity_bytes)
        self.live = self._options()
        self.live.create_if_missing(True)
        self.live.set_compression_type(DBCompressionType.lz4())
        self.live.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
        self.version = self._options()
        self.version.create_if_missing(False)
        self.version.set_max_open_files(-1)
        self.version.set_skip_stats_update_on_db_open(True)

    def counts(self) -> tuple[int, int]:
        """Hits and misses since the start, of data blocks. Takes about a millisecond: RocksDB prints all that it counts."""
        printed = [str(options.get_statistics()) for options in (self.live, self.version)]
        hits, misses = (sum(int(found[1]) for text in printed if (found := wanted.search(text))) for wanted in (_HITS, _MISSES))
        return hits, misses

    def _options(self) -> Options:
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_block_size(BLOCK_BYTES)
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
        options = Options(raw_mode=True)
        options.set_block_based_table_factory(table)
        options.set_keep_log_file_num(INFO_LOGS_KEPT)
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX)
        options.set_max_background_jobs(BACKGROUND_JOBS_MAX)
        options.enable_statistics()
        return options


class Database:
    """One open database; `get` and `get_many` answer None for what is absent."""

    def __init__(self, path: Path, options: Options, access: AccessType) -> None:
        self.path = path
        try:
            self._rdict = Rdict(str(path), options=options, column_families={"default": options}, access_type=access)
        except Exception as failed:  # rocksdict raises bare Exception
            cause = "another process has it open, perhaps a shard that runs already" if _LOCKED in str(failed) else failed
            raise NodeError(f"RocksDB can't open {path}: {cause}", path=str(path)) from failed
        self._get: Any = self._rdict.get  # bound once; its stub can't say that raw mode takes and gives bytes
        self._synced = WriteOptions()
        self._synced.sync = True
        self._ended = False
        self._aside = Lock()
        self._passing = ReadOptions()
        self._passing.fill_cache(False)  # type: ignore[call-arg]  # its stub forgets the argument

    @classmethod
    def open_live(cls, path: Path, cache: BlockCache, write_buffer_bytes: int) -> Database:
        """The live database, made if it is not there; the write-ahead log is replayed.

        Raises:
            NodeError: it can't be opened.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise NodeError(f"the directory {path.parent} can't be made: {failed.strerror}", path=str(path.parent)) from failed
        cache.live.set_write_buffer_size(write_buffer_bytes)
        return cls(path, cache.live, AccessType.read_write())

    @classmethod
    def open_version(cls, path: Path, cache: BlockCache) -> Database:
        """A published version directory, read-only."""
        return cls(path, cache.version, AccessType.read_only(False))

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        try:
            return self._get(key)  # type: ignore[no-any-return]  # bytes or None in raw mode
        except Exception as failed:
            raise self._failed("read", failed) from failed

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of some keys, in their order, by one MultiGet."""
        try:
            values: list[bytes | None] = self._get(keys)
        except Exception as failed:
            raise self._failed("read", failed) from failed
        return values

    def get_many_aside(self, keys: list[bytes]) -> list[bytes | None]:
        """As `get_many`, in a thread beside the loop: a MultiGet, unlike a get, frees the interpreter's lock while RocksDB reads. `close`
        waits for it.
        """
        with self._aside:
            return self.get_many(keys)

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Write one value; with `sync`, it is on the disk when this returns."""
        try:
            if sync:
                self._rdict.put(key, value, self._synced)
            else:
                self._rdict.put(key, value)
        except Exception as failed:
            raise self._failed("write", failed) from failed

    def write(self, entries: Iterable[tuple[bytes, bytes | None]], cleared: tuple[bytes, bytes] | None = None) -> None:
        """Write some values, and remove the keys whose value is None, after all keys from the first to before the second of `cleared` were
        removed: all of it or, after a crash, nothing.
        """
        batch = WriteBatch(raw_mode=True)
        if cleared is not None:
            batch.delete_range(*cleared)
        put, delete = batch.put, batch.delete
        for key, value in entries:
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._rdict.write(batch)
        except Exception as failed:
            raise self._failed("write", failed) from failed

    def delete_range(self, first: bytes, end: bytes) -> None:
        """Remove all keys from `first` to before `end`."""
        try:
            self._rdict.delete_range(first, end)
        except Exception as failed:
            raise self._failed("write", failed) from failed

    def flush(self) -> None:
        """Write the memtable to a file. Frees the interpreter's lock."""
        try:
            self._rdict.flush()
        except Exception as failed:
            raise self._failed("flush", failed) from failed

    def ingest(self, files: list[Path], *, may_flush: bool) -> None:
        """Move SST files in, all of them or none; refused where the memtable overlaps them, unless RocksDB may flush it first.

        Holds the interpreter's lock.
        """
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        moving.set_allow_blocking_flush(may_flush)
        try:
            self._rdict.ingest_external_file([str(one) for one in files], moving)
        except Exception as failed:
            raise self._failed("ingest", failed) from failed

    def sync(self) -> None:
        """Bring all that was written to the disk. Frees the interpreter's lock, so that a thread can wait for it."""
        try:
            self._rdict.flush_wal(True)
        except Exception as failed:
            raise self._failed("sync its write-ahead log", failed) from failed

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Remove one key, present or not."""
        try:
            if sync:
                self._rdict.delete(key, self._synced)
            else:
                self._rdict.delete(key)
        except Exception as failed:
            raise self._failed("write", failed) from failed

    def entries_from(self, key: bytes, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Entries in key order, from the first one that is not below `key`, or `backwards` from the last one that is not above it.

        Sees the database as it is now.
        """
        try:
            entries: Any = self._rdict.items(backwards=backwards, from_key=key)  # its stub can't say either that these are bytes
            return self._guarded(entries)
        except Exception as failed:
            raise self._failed("scan", failed) from failed

    def passing_from(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As `entries_from`, for walks in the background: what they read does not push hot blocks out of the cache."""
        try:
            entries: Any = self._rdict.items(from_key=key, read_opt=self._passing)
            return self._guarded(entries)
        except Exception as failed:
            raise self._failed("scan", failed) from failed

    def keys_from(self, key: bytes) -> Iterator[bytes]:
        """As `passing_from`, but keys alone: large values are not copied."""
        try:
            keys: Any = self._rdict.keys(from_key=key, read_opt=self._passing)
            return self._guarded(keys)
        except Exception as failed:
            raise self._failed("scan", failed) from failed

    def compact(self, first: bytes, end: bytes) -> None:
        """Give the space of removed keys in a range back. Takes as long as the data is large, and frees the interpreter's lock."""
        quiet = CompactOptions()
        quiet.set_exclusive_manual_compaction(False)  # or it would stop RocksDB's own compactions meanwhile
        try:
            self._rdict.flush()
            self._rdict.compact_range(first, end, quiet)
        except Exception as failed:
            raise self._failed("compact", failed) from failed

    def end_background_work(self) -> None:
        """At the end: flushes and compactions that run are broken off, new ones are not begun. What is written from now on stands in the
        write-ahead log alone.
        """
        self._ended = True
        self._rdict.cancel_all_background(False)

    def _guarded(self, entries: Iterator[_Found]) -> Iterator[_Found]:
        try:
            yield from entries
        except Exception as failed:
            raise self._failed("scan", failed) from failed

    def property(self, name: str) -> int:
        """One of RocksDB's numbers, such as `rocksdb.num-files-at-level0`."""
        return int(self._rdict.property_int_value(name) or 0)

    def keys_estimate(self) -> int:
        """RocksDB's estimate of how many keys it holds."""
        return self.property("rocksdb.estimate-num-keys")

    def close(self) -> None:
        """Flush what is not written, and close."""
        try:
            with self._aside:
                self._rdict.close()
        except Exception as failed:
            if not self._ended:  # or it is closed, and says that it could not flush
                raise self._failed("close", failed) from failed

    def _failed(self, what: str, failed: Exception) -> NodeError:
        return NodeError(f"RocksDB at {self.path} can't {what}: {failed}", path=str(self.path))


def write_sst(path: Path, key: bytes, value: bytes) -> None:
    """An SST file of one entry.

    Raises:
        NodeError: it can't be written.
    """
    try:
        writer = SstFileWriter(Options(raw_mode=True))
        writer.open(str(path))
        writer[key] = value
        writer.finish()
    except Exception as failed:
        raise NodeError(f"RocksDB can't write {path}: {failed}", path=str(path)) from failed
