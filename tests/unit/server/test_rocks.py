from __future__ import annotations

from pathlib import Path

from pipeline.format.layout import ShardPaths
from pipeline.format.values import encode_string
from server.storage.rocks import BlockCache, Database
from tests.support.versions import publish_version

CACHE_BYTES = 3 << 20


def test_all_databases_share_one_block_cache_whoever_made_them(tmp_path: Path) -> None:
    cache = BlockCache(CACHE_BYTES)
    version = publish_version(
        ShardPaths(tmp_path), "city", "2026-11-22", {b"city:%d" % number: encode_string(b"x" * 100) for number in range(9)}
    )
    for _ in range(2):  # the live database is made, then found
        live = Database.open_live(tmp_path / "live", cache, CACHE_BYTES)
        loaded = Database.open_version(version, cache)
        assert [one.property("rocksdb.block-cache-capacity") for one in (live, loaded)] == [CACHE_BYTES, CACHE_BYTES]
        live.close()
        loaded.close()


def test_the_size_of_the_memtable_can_be_changed(tmp_path: Path) -> None:
    for write_buffer_bytes in (1 << 20, 4 << 20):
        live = Database.open_live(tmp_path / "live", BlockCache(CACHE_BYTES), write_buffer_bytes)
        for number in range(2_000):
            live.put(b"%d" % number, bytes(1_000))
        assert (live.property("rocksdb.num-immutable-mem-table") + live.property("rocksdb.num-files-at-level0") > 0) is (
            write_buffer_bytes == 1 << 20
        )
        live.delete_range(b"", b"\xff")
        live.compact(b"", b"\xff")
        live.close()
