"""The ingest process' work on real RocksDB directories: what is kept, what is dropped, what is refused by file name."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import AccessType, Options, Rdict, SstFileWriter

from ingest_sidecar.job import IngestFile, IngestJob, IngestShard
from ingest_sidecar.making import make_version
from ingest_sidecar.notes import published, sources
from ingest_sidecar.reading import EntryWalk
from ingest_sidecar.worker import Pace
from pipeline.format.admin import VersionIdentity
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, RedkvError
from pipeline.format.keys import meta_key
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SLOT_COUNT, SlotRange

V1 = "2026-11-22"
ALL = (SlotRange(first=0, last=SLOT_COUNT - 1),)
ENTRIES = [(meta_key(b"k", slot), b"v%d" % slot) for slot in range(100)]


@pytest.fixture
def staged(tmp_path: Path) -> IngestFile:
    return sst(tmp_path / "0.sst", ENTRIES)


def sst(path: Path, entries: list[tuple[bytes, bytes]]) -> IngestFile:
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(path))
    for key, value in entries:
        writer[key] = value
    writer.finish()
    digest = ContentDigest()
    digest.update([key for key, _ in entries], [value for _, value in entries])
    return IngestFile(
        path=path,
        object_key=f"builds/{path.name}",
        smallest=entries[0][0],
        largest=entries[-1][0],
        keys=len(entries),
        entries=len(entries),
        deletes=0,
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        content_digest=digest.hexdigest(),
    )


def shard_of(root: Path, slots: tuple[SlotRange, ...], *files: IngestFile) -> tuple[IngestJob, IngestShard]:
    identity = VersionIdentity(dataset="person", version=V1, build_id="b", manifest_sha256="0" * 64, slots=slots, keys=0, entries=0)
    shard = IngestShard(name="a", data_dir=root / "shard", slots=slots, identity=identity.model_dump(mode="json"), files=files)
    return IngestJob(dataset="person", version=V1, build_id="b", node="node-1", shards=(shard,)), shard


def held(root: Path) -> dict[bytes, bytes]:
    path = ShardPaths(root / "shard").version("person", V1)
    database = Rdict(str(path), options=Options(raw_mode=True), access_type=AccessType.read_only(False))
    try:
        return dict(iter(database.items()))  # type: ignore[arg-type]  # raw mode gives bytes
    finally:
        database.close()


def test_all_entries_are_published_and_the_staged_file_stays(tmp_path: Path, staged: IngestFile) -> None:
    seen: list[int] = []
    counts = make_version(*shard_of(tmp_path, ALL, staged), seen.append)
    assert (counts.keys, counts.entries, sum(seen)) == (100, 100, staged.size)
    identity = published(ShardPaths(tmp_path / "shard"), "person", V1)
    assert identity is not None
    assert (identity.build_id, identity.slots, identity.keys, identity.entries) == ("b", ALL, 100, 100)
    assert held(tmp_path) == dict(ENTRIES)
    assert staged.path.exists()
    assert not list(ShardPaths(tmp_path / "shard").making.iterdir())


@pytest.mark.parametrize(
    "slots", [(SlotRange(first=10, last=19),), (SlotRange(first=0, last=4), SlotRange(first=50, last=59), SlotRange(first=99, last=99))]
)
def test_slots_of_others_go_and_the_rest_is_counted_again(tmp_path: Path, staged: IngestFile, slots: tuple[SlotRange, ...]) -> None:
    own = {key: value for key, value in ENTRIES if any(int.from_bytes(key[:2]) in one for one in slots)}
    counts = make_version(*shard_of(tmp_path, slots, staged), lambda _: None)
    assert (counts.keys, counts.entries) == (len(own), len(own))
    assert held(tmp_path) == own


def test_a_shard_without_files_gets_an_empty_directory(tmp_path: Path) -> None:
    counts = make_version(*shard_of(tmp_path, ALL), lambda _: None)
    assert (counts.keys, counts.entries) == (0, 0)
    assert held(tmp_path) == {}


def test_made_again_it_takes_the_place_of_one_that_is_open(tmp_path: Path, staged: IngestFile) -> None:
    make_version(*shard_of(tmp_path, (SlotRange(first=0, last=9),), staged), lambda _: None)
    path = ShardPaths(tmp_path / "shard").version("person", V1)
    open_one = Rdict(str(path), options=Options(raw_mode=True), access_type=AccessType.read_only(False))
    try:
        assert make_version(*shard_of(tmp_path, ALL, staged), lambda _: None).entries == 100
        assert (open_one.get(ENTRIES[3][0]), open_one.get(ENTRIES[50][0])) == (b"v3", None)
    finally:
        open_one.close()
    assert held(tmp_path) == dict(ENTRIES)
    assert not list(ShardPaths(tmp_path / "shard").making.iterdir())


PART = (SlotRange(first=10, last=19),)


@pytest.mark.parametrize(
    ("slots", "change", "error"),
    [
        (ALL, {"entries": 99}, CountMismatchError),
        (ALL, {"deletes": 1}, CountMismatchError),
        (ALL, {"size": 99}, CountMismatchError),
        (ALL, {"smallest": ENTRIES[1][0]}, CountMismatchError),
        (ALL, {"largest": ENTRIES[98][0]}, CountMismatchError),
        (ALL, {"sha256": "1" * 64}, ChecksumMismatchError),
        (PART, {"entries": 99}, CountMismatchError),
        (PART, {"keys": 99}, CountMismatchError),
        (PART, {"content_digest": "1" * 64}, ChecksumMismatchError),
        (PART, {"largest": ENTRIES[50][0]}, CountMismatchError),
    ],
)
def test_what_is_not_as_promised_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, staged: IngestFile, slots: tuple[SlotRange, ...], change: dict[str, Any], error: type[RedkvError]
) -> None:
    with pytest.raises(error, match=rf"builds/0\.sst.*person {V1} on node-1, shard a") as refused:
        make_version(*shard_of(tmp_path, slots, replace(staged, **change)), lambda _: None)
    assert refused.value.fields.items() >= {"dataset": "person", "version": V1, "node": "node-1", "object": "builds/0.sst"}.items()
    paths = ShardPaths(tmp_path / "shard")
    assert published(paths, "person", V1) is None
    assert not list(paths.making.iterdir())


@pytest.mark.parametrize("slots", [ALL, PART])
def test_bytes_that_changed_on_this_disk_are_not_taken(tmp_path: Path, staged: IngestFile, slots: tuple[SlotRange, ...]) -> None:
    data = bytearray(staged.path.read_bytes())
    data[len(data) // 4] ^= 1
    staged.path.write_bytes(data)
    with pytest.raises(ChecksumMismatchError):
        make_version(*shard_of(tmp_path, slots, staged), lambda _: None)
    assert published(ShardPaths(tmp_path / "shard"), "person", V1) is None


def test_whole_files_stay_links_and_are_not_counted_again_beside_one_that_is_cut(tmp_path: Path) -> None:
    first, last = sst(tmp_path / "0.sst", ENTRIES[:40]), sst(tmp_path / "1.sst", ENTRIES[40:])
    counts = make_version(*shard_of(tmp_path, (SlotRange(first=0, last=59),), first, last), lambda _: None)
    assert (counts.keys, counts.entries) == (60, 60)
    assert held(tmp_path) == dict(ENTRIES[:60])
    path = ShardPaths(tmp_path / "shard").version("person", V1)
    assert list(sources(path).values()) == ["0.sst"]
    assert first.path.stat().st_nlink == 2
    assert last.path.stat().st_nlink == 1


def test_a_job_is_the_same_on_both_sides(tmp_path: Path, staged: IngestFile) -> None:
    job, shard = shard_of(tmp_path, PART, staged)
    trimmed = replace(shard, files=(), trimmed=True, originals={"000008.sst": "0.sst"})
    both = replace(job, shards=(shard, trimmed))
    assert IngestJob.from_line(both.to_line()) == both


def test_the_process_imports_no_model_library() -> None:
    command = "import sys, ingest_sidecar.worker; sys.exit('pydantic' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@given(keys=st.sets(st.binary(min_size=1, max_size=3)), cuts=st.lists(st.binary(max_size=3), max_size=4))
def test_a_walk_hands_out_every_entry_once_in_order(keys: set[bytes], cuts: list[bytes]) -> None:
    entries = [(key, key) for key in sorted(keys)]
    walk = EntryWalk(iter(entries))
    seen: list[bytes] = []
    for cut in [*sorted(cuts), None]:
        part = [key for found, _ in walk.up_to(cut) for key in found]
        assert cut is None or all(key <= cut for key in part)
        seen += part
    assert seen == sorted(keys)
    assert walk.ahead is None


def test_a_pace_rests_as_long_as_its_share_says() -> None:
    now, rests = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds
        if len(rests) > 20:
            pace.share = 1.0  # of one that is paused

    pace = Pace(lambda: now[0], sleep, burst_s=2.0)
    for share in (1.0, 0.5):  # what is free is free at any share
        pace.share = share
        now[0] += 1.0
        pace.rest()
    assert rests == []
    for share, total in ((0.5, 1.0), (0.25, 3.0)):
        rests.clear()
        pace.share = share
        now[0] += 1.0
        pace.rest()
        assert sum(rests) == pytest.approx(total)
        assert max(rests) <= 0.5
    rests.clear()
    pace.share = 0.0
    pace.rest()
    assert len(rests) == 21
