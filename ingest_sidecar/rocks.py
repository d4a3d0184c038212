"""RocksDB in the ingest process: making a version directory. The only module of the sidecar that imports rocksdict.

Rules:
- The directory holds ingested files at the bottom level and nothing else: no write-ahead log, no compaction that nobody asked for.
- Files come as hard links and are moved in, so that ingestion copies no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rocksdict import BlockBasedOptions, DBCompressionType, IngestExternalFileOptions, Options, Rdict, ReadOptions, SstFileWriter

from pipeline.format.errors import ChecksumMismatchError, DiskFullError, IngestProcessError, RedkvError
from pipeline.format.keys import slot_bounds
from pipeline.format.slots import SlotRange

READAHEAD_BYTES = 2 << 20  # one pass over everything: read ahead, and keep nothing of it in a cache
BLOOM_BITS_PER_KEY = 10  # for straddling files, which are written anew: as the build job writes them
BLOCK_BYTES = 4 << 10  # the same


@dataclass(frozen=True, slots=True)
class HeldFile:
    """One file of a directory: its name there, size in bytes, first and last key, entries (deletes among them) and deletes."""

    name: str
    size: int
    smallest: bytes
    largest: bytes
    entries: int
    deletes: int


class SstWriter:
    """One SST file, written when its first entry comes. Keys must grow strictly; None deletes a key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def add(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Append entries."""
        with _named("write", self.path):
            for key, value in entries:
                if self._writer is None:
                    self._writer = SstFileWriter(_options())
                    self._writer.open(str(self.path))
                if value is None:
                    del self._writer[key]
                else:
                    self._writer[key] = value

    def finish(self) -> bool:
        """Close it; whether there is a file: one without entries can't be."""
        if self._writer is None:
            return False
        with _named("write", self.path):
            self._writer.finish()
        return True


class VersionDatabase:
    """A version directory while it is made. A context manager."""

    def __init__(self, path: Path) -> None:
        options = _options()
        options.create_if_missing(True)
        options.set_disable_auto_compactions(True)
        options.set_keep_log_file_num(1)
        self.path = path
        self._rdict = self._guarded("open", lambda: Rdict(str(path), options=options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._rdict.close()

    def ingest(self, files: list[Path]) -> None:
        """Move files in, all in one call, over what is there. No key may be in two of them."""
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        self._guarded("ingest", lambda: self._rdict.ingest_external_file([str(one) for one in files], moving))

    def files(self) -> list[HeldFile]:
        """What RocksDB's own notes say of every file, in key order."""
        found: list[dict[str, Any]] = self._guarded("list its files", self._rdict.live_files)
        files = (
            HeldFile(one["name"].lstrip("/"), one["size"], one["start_key"], one["end_key"], one["num_entries"], one["num_deletions"])
            for one in found
        )
        return sorted(files, key=lambda one: one.smallest)

    def entries(self, first: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries in key order, from the first one that is not below `first`; block checksums are verified."""
        options = ReadOptions()
        options.set_verify_checksums(True)
        options.set_readahead_size(READAHEAD_BYTES)
        options.fill_cache(False)  # type: ignore[call-arg]  # rocksdict's stub forgets the argument
        try:
            yield from self._rdict.items(from_key=first, read_opt=options)
        except Exception as failed:
            raise _failure("read", self.path, failed) from failed

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of every key, None where there is none."""
        found: list[bytes | None] = self._guarded("read", lambda: self._rdict.get(list(keys)))
        return found

    def drop_slots(self, slots: list[SlotRange]) -> None:
        """Remove all keys of some slots, and rewrite the files that held them."""
        bounds = [slot_bounds(one.first, one.last) for one in slots]
        self._guarded("drop slots", lambda: [self._rdict.delete_range(low, high) for low, high in bounds])
        self._guarded("flush", self._rdict.flush)
        self._guarded("compact", lambda: [self._rdict.compact_range(low, high) for low, high in bounds])

    def _guarded(self, what: str, work: Callable[[], Any]) -> Any:
        with _named(what, self.path):
            return work()


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    table.set_block_size(BLOCK_BYTES)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    return options


@contextmanager
def _named(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as failed:  # rocksdict raises bare Exception
        raise _failure(what, path, failed) from failed


def _failure(what: str, path: Path, failed: Exception) -> RedkvError:
    message = f"RocksDB could not {what} in {path}: {failed}"
    if str(failed).startswith("Corruption"):
        return ChecksumMismatchError(f"{message}: the bytes changed on this node's disk after they were verified", path=str(path))
    if "No space left on device" in str(failed):
        return DiskFullError(f"{message}: free space there, it goes on by itself", path=str(path))
    return IngestProcessError(message, path=str(path))
