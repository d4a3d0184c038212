"""RocksDB in the ingest process: making a version directory. The only module of the sidecar that imports rocksdict.

Rules:
- The directory holds ingested files at the bottom level and nothing else: no write-ahead log, no compaction that nobody asked for.
- Files come as hard links and are moved in, so that ingestion copies no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rocksdict import BlockBasedOptions, DBCompressionType, IngestExternalFileOptions, Options, Rdict, ReadOptions

from pipeline.format.errors import ChecksumMismatchError, DiskFullError, IngestProcessError, RedkvError
from pipeline.format.keys import slot_bounds
from pipeline.format.slots import SlotRange

READAHEAD_BYTES = 2 << 20  # one pass over everything: read ahead, and keep nothing of it in a cache
BLOOM_BITS_PER_KEY = 10  # for straddling files, which are written anew: as the build job writes them
BLOCK_BYTES = 4 << 10  # the same


class VersionDatabase:
    """A version directory while it is made. A context manager."""

    def __init__(self, path: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_disable_auto_compactions(True)
        options.set_compression_type(DBCompressionType.lz4())
        table = BlockBasedOptions()
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
        table.set_block_size(BLOCK_BYTES)
        options.set_block_based_table_factory(table)
        options.set_keep_log_file_num(1)
        self.path = path
        self._rdict = self._guarded("open", lambda: Rdict(str(path), options=options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._rdict.close()

    def ingest(self, files: list[Path]) -> None:
        """Move files in, all in one call; they must not overlap."""
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        self._guarded("ingest", lambda: self._rdict.ingest_external_file([str(one) for one in files], moving))

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries in key order; block checksums are verified."""
        options = ReadOptions()
        options.set_verify_checksums(True)
        options.set_readahead_size(READAHEAD_BYTES)
        try:
            yield from self._rdict.items(read_opt=options)
        except Exception as failed:
            raise self._failure("read", failed) from failed

    def drop_slots(self, slots: list[SlotRange]) -> None:
        """Remove all keys of some slots, and rewrite the files that held them."""
        bounds = [slot_bounds(one.first, one.last) for one in slots]
        self._guarded("drop slots", lambda: [self._rdict.delete_range(low, high) for low, high in bounds])
        self._guarded("flush", self._rdict.flush)
        self._guarded("compact", lambda: [self._rdict.compact_range(low, high) for low, high in bounds])

    def _guarded(self, what: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as failed:  # rocksdict raises bare Exception
            raise self._failure(what, failed) from failed

    def _failure(self, what: str, failed: Exception) -> RedkvError:
        message = f"RocksDB could not {what} in {self.path}: {failed}"
        if str(failed).startswith("Corruption"):
            return ChecksumMismatchError(f"{message}: the bytes changed on this node's disk after they were verified", path=str(self.path))
        if "No space left on device" in str(failed):
            return DiskFullError(f"{message}: free space there, it goes on by itself", path=str(self.path))
        return IngestProcessError(message, path=str(self.path))
