"""Deltas on real RocksDB directories: into how few files they go, that these hold what they shall, and what of them is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rocksdict import AccessType, Options, Rdict, SstFileWriter

from ingest_sidecar.disk import noted_sha256
from ingest_sidecar.job import LINKED_BYTES_MIN, IngestBase, IngestFile, IngestJob, IngestShard
from ingest_sidecar.making import make_version
from ingest_sidecar.notes import sources
from ingest_sidecar.reading import sha256_of
from ingest_sidecar.rocks import VersionDatabase
from pipeline.format.admin import VersionIdentity
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, RedkvError
from pipeline.format.keys import meta_key
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SLOT_COUNT, SlotRange

V1 = "2026-11-22"
ALL = (SlotRange(first=0, last=SLOT_COUNT - 1),)
ROWS = {meta_key(b"k", slot): b"old%d" % slot for slot in range(100)}

Entries = dict[bytes, bytes | None]


def sst(path: Path, entries: Entries) -> IngestFile:
    """A file of puts or of deletes, as a build writes it."""
    path.parent.mkdir(exist_ok=True)
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(path))
    for key, value in entries.items():
        writer[key] = value or b""
    writer.finish()
    digest = ContentDigest()
    digest.update(list(entries), list(entries.values()))
    deletes = list(entries.values()).count(None)
    return IngestFile(
        path=path,
        object_key=f"builds/{path.name}",
        smallest=next(iter(entries)),
        largest=list(entries)[-1],
        keys=len(entries) - deletes,
        entries=len(entries) - deletes,
        deletes=deletes,
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        content_digest=digest.hexdigest(),
    )


def job_of(root: Path, files: tuple[IngestFile, ...], *layers: tuple[IngestFile, ...]) -> tuple[IngestJob, IngestShard]:
    identity = VersionIdentity(
        format_version=2, dataset="person", version=V1, build_id="b", manifest_sha256="0" * 64, slots=ALL, keys=0, entries=0
    )
    shard = IngestShard("a", root / "shard", ALL, identity.model_dump(mode="json"), files=files, layers=layers)
    return IngestJob(dataset="person", version=V1, build_id="b", node="node-1", shards=(shard,)), shard


def directory(root: Path) -> Path:
    return ShardPaths(root / "shard").version("person", V1)


def held(root: Path) -> dict[bytes, bytes]:
    database = Rdict(str(directory(root)), options=Options(raw_mode=True), access_type=AccessType.read_only(False))
    try:
        return dict(iter(database.items()))  # type: ignore[arg-type]  # raw mode gives bytes
    finally:
        database.close()


def on_base(root: Path, slots: tuple[SlotRange, ...], *layer: IngestFile) -> tuple[IngestJob, IngestShard]:
    """A delta on the version that `job_of` makes, of these slots."""
    base = IngestBase(directory(root), "b", 0, {}, {})
    job, shard = job_of(root, (), layer)
    return job, replace(shard, slots=slots, data_dir=root / "other", base=base)


def base_of(root: Path) -> tuple[IngestFile, ...]:
    return (sst(root / "base" / "0.sst", dict(ROWS)),)


def change(root: Path, puts: range, gone: range) -> tuple[tuple[IngestFile, ...], Entries]:
    """A file per changed row and per row that goes, as many tasks leave them."""
    changed: Entries = {meta_key(b"k", slot): b"new%d" % slot for slot in puts} | {meta_key(b"k", slot): None for slot in gone}
    files = [sst(root / "delta" / f"{number}.sst", {key: value}) for number, (key, value) in enumerate(sorted(changed.items()))]
    return tuple(files), changed


def test_small_files_come_to_one_for_puts_and_one_for_deletes(tmp_path: Path) -> None:
    files, changed = change(tmp_path, range(40, 120), range(30))
    seen: list[int] = []
    counts = make_version(*job_of(tmp_path, base_of(tmp_path), files), seen.append)
    after = {key: value for key, value in (dict[bytes, bytes | None](ROWS) | changed).items() if value is not None}
    assert held(tmp_path) == after
    assert (counts.keys, counts.entries) == (len(after), len(after))
    assert counts.applied == {"deletes": 30, "applied": {"keys": 80, "entries": 80}}
    assert sum(path.suffix == ".sst" for path in directory(tmp_path).iterdir()) == 3
    with VersionDatabase(directory(tmp_path)) as database:
        assert sorted((one.entries, one.deletes) for one in database.files()) == [(30, 30), (80, 0), (100, 0)]


def test_a_lone_file_of_puts_stays_the_build_s(tmp_path: Path) -> None:
    files, changed = change(tmp_path, range(40, 41), range(30, 31))
    make_version(*job_of(tmp_path, base_of(tmp_path), files), lambda _: None)
    assert sorted(sources(directory(tmp_path)).values()) == ["1.sst", "base/0.sst"]
    assert held(tmp_path) == {key: value for key, value in (ROWS | changed).items() if value is not None}


def test_a_large_file_is_linked_and_small_ones_go_before_and_behind_it(tmp_path: Path) -> None:
    small: list[Entries] = [{meta_key(b"k", slot): b"new"} for slot in (1, 2, 50, 51)]
    large: Entries = {meta_key(b"%d" % number, 9): os.urandom(LINKED_BYTES_MIN // 15) for number in range(10, 26)}
    files = [sst(tmp_path / "delta" / f"{number}.sst", one) for number, one in enumerate((*small[:2], large, *small[2:]))]
    make_version(*job_of(tmp_path, base_of(tmp_path), tuple(files)), lambda _: None)
    assert sorted(sources(directory(tmp_path)).values()) == ["2.sst", "base/0.sst"]
    with VersionDatabase(directory(tmp_path)) as database:
        assert [one.entries for one in database.files()] == [100, 2, 16, 2]
    expected: Entries = {**ROWS}
    for part in (*small, large):
        expected |= part
    assert held(tmp_path) == expected


@pytest.mark.parametrize(
    ("change_of", "error"),
    [({"entries": 2}, CountMismatchError), ({"keys": 2}, CountMismatchError), ({"content_digest": "1" * 64}, ChecksumMismatchError)],
)
def test_each_of_the_small_files_is_held_against_the_manifest(tmp_path: Path, change_of: dict[str, int], error: type[RedkvError]) -> None:
    files, _ = change(tmp_path, range(40, 50), range(0))
    wrong = (*files[:7], replace(files[7], **change_of), *files[8:])  # type: ignore[arg-type]
    with pytest.raises(error, match=rf"builds/7\.sst in person {V1} on node-1, shard a") as refused:
        make_version(*job_of(tmp_path, base_of(tmp_path), wrong), lambda _: None)
    assert refused.value.fields["object"] == "builds/7.sst"
    assert not directory(tmp_path).exists()


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_file_that_can_t_be_read_is_named(tmp_path: Path, at: float) -> None:
    """A byte of its first block, or of its footer, without which RocksDB takes in none of them."""
    files, _ = change(tmp_path, range(40, 50), range(0))
    data = bytearray(files[7].path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    files[7].path.write_bytes(data)
    with pytest.raises(ChecksumMismatchError) as refused:
        make_version(*job_of(tmp_path, base_of(tmp_path), files), lambda _: None)
    assert refused.value.fields["object"] == "builds/7.sst"


HALF = (SlotRange(first=0, last=49),)


@pytest.mark.parametrize("which", ["of the build", "written anew", "of a delta"])
def test_every_byte_of_what_a_delta_begins_with_is_held_against_what_was_noted(tmp_path: Path, which: str) -> None:
    parts = (
        sst(tmp_path / "base" / "0.sst", dict(list(ROWS.items())[:30])),
        sst(tmp_path / "base" / "1.sst", dict(list(ROWS.items())[30:])),
    )
    puts = tuple(sst(tmp_path / "delta" / f"{slot}.sst", {meta_key(b"k", slot): b"new"}) for slot in (1, 40))
    job, shard = job_of(tmp_path, parts, puts)
    shard = replace(shard, slots=HALF, identity={**shard.identity, "slots": [asdict(one) for one in HALF]})
    make_version(job, shard, lambda _: None)
    seen: list[int] = []
    sizes = {path.name: path.stat().st_size for path in directory(tmp_path).glob("*.sst")}
    assert noted_sha256(directory(tmp_path)).keys() == sizes.keys()
    counts = make_version(*on_base(tmp_path, HALF), seen.append)
    assert (counts.keys, sum(seen), len(sizes)) == (50, sum(sizes.values()), 3)
    other = ShardPaths(tmp_path / "other").version("person", V1)
    assert noted_sha256(other) == noted_sha256(directory(tmp_path))
    shutil.rmtree(other)
    with VersionDatabase(directory(tmp_path)) as database:
        names = {{30: "of the build", 20: "written anew", 2: "of a delta"}[one.entries]: one.name for one in database.files()}
    victim = directory(tmp_path) / names[which]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match=f"{victim}, which person {V1} on node-1, shard a, begins with") as refused:
        make_version(*on_base(tmp_path, HALF), lambda _: None)
    assert refused.value.fields["copy"] == str(victim)
    assert not other.exists()


def test_a_directory_that_lost_slots_says_of_all_its_files_what_they_were_made_with(tmp_path: Path) -> None:
    files, _ = change(tmp_path, range(10, 50), range(0))
    job, shard = job_of(tmp_path, base_of(tmp_path), files)
    make_version(job, shard, lambda _: None)
    before = noted_sha256(directory(tmp_path))
    make_version(job, replace(shard, slots=HALF, files=(), layers=(), trimmed=True), lambda _: None)
    after = noted_sha256(directory(tmp_path))
    assert after == {name: sha256_of(directory(tmp_path) / name, lambda _: None) for name in after}
    assert len(before) == 2
    assert after.keys() - before.keys()


def test_both_passes_over_a_delta_keep_the_pace(tmp_path: Path) -> None:
    files, _ = change(tmp_path, range(40, 50), range(10))
    seen: list[int] = []
    base = base_of(tmp_path)
    make_version(*job_of(tmp_path, base, files), seen.append)
    written = [path.stat().st_size for path in directory(tmp_path).glob("*.sst") if path.name not in sources(directory(tmp_path))]
    assert sorted(seen) == sorted([base[0].size, *(2 * [one.size // 2 for one in files]), *written])
