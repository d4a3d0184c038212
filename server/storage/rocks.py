"""RocksDB. The only module of the server that imports rocksdict.

Rules:
- Keys and values are bytes (raw mode); there is one column family.
- All databases of a process share one block cache, which bounds the memory of data blocks. Index and filter blocks stay with the open
  tables: reading them through the cache costs every GET about a microsecond.
- A version directory is opened read-only with all its files, so that its directory entries may go while a reader still holds it.
- A foreign exception becomes a NodeError that names the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocksdict import AccessType, BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteOptions

from pipeline.format.errors import NodeError

BLOOM_BITS_PER_KEY = 10  # RocksDB's usual choice: about 1 % of reads of absent keys touch a data block
BLOCK_BYTES = 4 << 10  # RocksDB's default: point reads, not scans, are what this serves
INFO_LOGS_KEPT = 4
INFO_LOG_BYTES_MAX = 4 << 20
BACKGROUND_JOBS_MAX = 2  # flushes and compactions run beside the event loop, and several shards share a machine

BlockCache = Cache


def new_cache(capacity_bytes: int) -> BlockCache:
    """The block cache that all databases of the process share."""
    return Cache(capacity_bytes)


class Database:
    """One open database; `get` and `get_many` answer None for what is absent."""

    def __init__(self, path: Path, options: Options, access: AccessType) -> None:
        self.path = path
        try:
            self._rdict = Rdict(str(path), options=options, access_type=access)
        except Exception as failed:  # rocksdict raises bare Exception
            raise NodeError(f"RocksDB can't open {path}: {failed}", path=str(path)) from failed
        self._get: Any = self._rdict.get  # bound once; its stub can't say that raw mode takes and gives bytes
        self._synced = WriteOptions()
        self._synced.sync = True

    @classmethod
    def open_live(cls, path: Path, cache: BlockCache, write_buffer_bytes: int) -> Database:
        """The live database, made if it is not there; the write-ahead log is replayed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        options = _options(cache)
        options.create_if_missing(True)
        options.set_write_buffer_size(write_buffer_bytes)
        options.set_compression_type(DBCompressionType.lz4())
        return cls(path, options, AccessType.read_write())

    @classmethod
    def open_version(cls, path: Path, cache: BlockCache) -> Database:
        """A published version directory, read-only."""
        options = _options(cache)
        options.create_if_missing(False)
        options.set_max_open_files(-1)
        options.set_skip_stats_update_on_db_open(True)
        return cls(path, options, AccessType.read_only(False))

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

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Write one value; with `sync`, it is on the disk when this returns."""
        try:
            if sync:
                self._rdict.put(key, value, self._synced)
            else:
                self._rdict.put(key, value)
        except Exception as failed:
            raise self._failed("write", failed) from failed

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

        Sees the database as it was at the first step.
        """
        try:
            yield from self._rdict.items(backwards=backwards, from_key=key)
        except Exception as failed:
            raise self._failed("scan", failed) from failed

    def keys_estimate(self) -> int:
        """RocksDB's estimate of how many keys it holds."""
        return int(self._rdict.property_int_value("rocksdb.estimate-num-keys") or 0)

    def close(self) -> None:
        """Flush what is not written, and close."""
        self._rdict.close()

    def _failed(self, what: str, failed: Exception) -> NodeError:
        return NodeError(f"RocksDB at {self.path} can't {what}: {failed}", path=str(self.path))


def _options(cache: BlockCache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(BLOCK_BYTES)
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_keep_log_file_num(INFO_LOGS_KEPT)
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX)
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX)
    return options
