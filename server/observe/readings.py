"""What a shard is made of, as numbers: RocksDB, the process, the datasets. Read by INFO on the loop and by the metrics' thread beside it.

Rules:
- Nothing here changes anything, or waits for anything but the file system's memory. Copies of what the loop changes are made by one call
  each, which CPython does not interrupt.
- RocksDB's numbers are of the live database; the block cache is the one that all versions share.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from server.session import Services
from server.storage.rocks import COMPACTION_BYTES, LEVEL0_FILES

KIB = 1 << 10

PROPERTIES = {
    "block_cache_usage_bytes": "rocksdb.block-cache-usage",
    "block_cache_pinned_bytes": "rocksdb.block-cache-pinned-usage",
    "block_cache_capacity_bytes": "rocksdb.block-cache-capacity",
    "memtable_bytes": "rocksdb.cur-size-all-mem-tables",
    "immutable_memtables": "rocksdb.num-immutable-mem-table",
    "table_readers_bytes": "rocksdb.estimate-table-readers-mem",
    "level0_files": LEVEL0_FILES,
    "sst_bytes": "rocksdb.total-sst-files-size",
    "live_data_bytes": "rocksdb.estimate-live-data-size",
    "keys_estimate": "rocksdb.estimate-num-keys",
    "pending_compaction_bytes": COMPACTION_BYTES,
    "running_compactions": "rocksdb.num-running-compactions",
    "running_flushes": "rocksdb.num-running-flushes",
    "background_errors": "rocksdb.background-errors",
    "delayed_write_bytes_per_s": "rocksdb.actual-delayed-write-rate",
    "write_stopped": "rocksdb.is-write-stopped",
}
"""Names of ours, and RocksDB's properties. Each takes some microseconds."""


@dataclass(frozen=True, slots=True)
class DatasetReading:
    """One dataset: `refused` if its active version can't be served, `lagging` if clients shall read another one, which is `expected`."""

    name: str
    prefix: str
    active: str
    build_id: str
    opened: int
    pins: int
    keys: int
    refused: bool
    expected: str
    lagging: bool


def rocksdb(services: Services) -> dict[str, int]:
    """RocksDB's numbers, and how many bytes of write-ahead log there are."""
    database = services.engine.live.database
    found = {name: database.property(name_there) for name, name_there in PROPERTIES.items()}
    return found | {"wal_bytes": _wal_bytes(database.path)}


def caches(services: Services) -> dict[str, int]:
    """What the hot values and the block cache answered since the start, and what they did not. Whatever the hot values lack, RocksDB is
    asked for; it looks into the block cache for what is not in a memtable.
    """
    engine = services.engine
    block_hits, block_misses = services.versions.cache.counts()
    return {
        "hot_cache_hits": max(0, engine.reads - engine.fetches),
        "hot_cache_misses": engine.fetches,
        "hot_cache_values": len(engine.cache),
        "block_cache_hits": block_hits,
        "block_cache_misses": block_misses,
    }


def _wal_bytes(directory: Path) -> int:
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".log"):
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue  # RocksDB has just removed it
    return total


def datasets(services: Services) -> list[DatasetReading]:
    """All registered datasets, by name."""
    readings = []
    for name, one in sorted(services.engine.index.by_name.copy().items()):
        pointer, active = one.pointer, one.active
        readings.append(
            DatasetReading(
                name=name,
                prefix=pointer.prefix,
                active=pointer.active or "",
                build_id=pointer.build_id or "",
                opened=len(one.opened),
                pins=sum(version.pins for version in one.opened.copy().values()),
                keys=active.identity.keys if active else 0,
                refused=pointer.active is not None and active is None,
                expected=pointer.expected or "",
                lagging=pointer.expected not in {None, pointer.active},
            )
        )
    return readings


def resident_bytes() -> int:
    """The process's memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def resident_peak_bytes() -> int:
    """The most that it was."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
