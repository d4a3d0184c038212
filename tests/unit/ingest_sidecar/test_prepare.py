"""What is prepared of an upsert: own rows alone, deletes as tombstones, and nothing that is not as the manifest says."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import IngestExternalFileOptions, Options, Rdict, SstFileWriter

from ingest_sidecar.job import IngestFile, IngestJob, IngestShard
from ingest_sidecar.notes import noted_files, published, sources
from ingest_sidecar.prepare import prepare_upsert
from pipeline.format.admin import VersionIdentity
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, NodeError
from pipeline.format.keys import Kind, element_head, meta_key, parse_key
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SLOT_COUNT, SlotRange, ranges_of, slot_set
from pipeline.format.values import encode_string
from server.storage.datasets import DatasetIndex
from server.storage.engine import Engine
from server.storage.gate import Gate
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from server.storage.rocks import BlockCache, Database
from server.storage.upserts import Unit, Upserts

V1 = "2026-11-22"
ALL = (SlotRange(first=0, last=SLOT_COUNT - 1),)
ELEMENT = element_head(Kind.HASH_FIELD, b"big", 7, 50) + b"empty"

Entries = dict[bytes, bytes | None]


def sst(path: Path, entries: Entries) -> IngestFile:
    """A file as a build writes it: a delete is a meta without a value."""
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(path))
    ordered = sorted(entries.items())
    for key, value in ordered:
        writer[key] = value or b""
    writer.finish()
    digest = ContentDigest()
    digest.update([key for key, _ in ordered], [value for _, value in ordered])
    deletes = list(entries.values()).count(None)
    return IngestFile(
        path=path,
        object_key=f"builds/{path.name}",
        smallest=ordered[0][0],
        largest=ordered[-1][0],
        keys=[parse_key(key).kind for key in entries].count(Kind.META) - deletes,
        entries=len(entries) - deletes,
        deletes=deletes,
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        content_digest=digest.hexdigest(),
    )


def job_of(root: Path, slots: tuple[SlotRange, ...], *files: IngestFile) -> tuple[IngestJob, IngestShard]:
    identity = VersionIdentity(dataset="person", version=V1, build_id="b", manifest_sha256="0" * 64, slots=slots, keys=0, entries=0)
    shard = IngestShard(name="a", data_dir=root / "shard", slots=slots, identity=identity.model_dump(mode="json"), files=files)
    return IngestJob(dataset="person", version=V1, build_id="b", node="node-1", shards=(shard,), upsert=True), shard


def directory(root: Path) -> Path:
    return ShardPaths(root / "shard").version("person", V1)


def over(root: Path, before: Entries) -> dict[bytes, bytes]:
    """What a database that held some entries holds once it took in what is prepared."""
    database = Rdict(str(root / "live"), options=Options(raw_mode=True))
    try:
        for key, value in before.items():
            database[key] = value
        database.flush()
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        names = sorted(str(path) for path in directory(root).glob("*.sst"))
        if names:
            database.ingest_external_file(names, moving)
        return dict(iter(database.items()))  # type: ignore[arg-type]  # raw mode gives bytes
    finally:
        database.close()


SLOTS = st.integers(0, 60)


@settings(max_examples=25)  # each opens three databases
@given(puts=st.sets(SLOTS), gone=st.sets(SLOTS), owned=st.sets(SLOTS, min_size=1), cut=SLOTS)
def test_a_shard_takes_its_own_rows_and_deletes_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, puts: set[int], gone: set[int], owned: set[int], cut: int
) -> None:
    root = tmp_path_factory.mktemp("prepared")
    entries: Entries = {meta_key(b"k", slot): b"v%d" % slot for slot in puts} | {meta_key(b"k", slot): None for slot in gone}
    if puts:
        entries[ELEMENT] = b""
    parts = [{key: value for key, value in entries.items() if (parse_key(key).slot < cut) == below} for below in (True, False)]
    files = [sst(root / f"{index}.sst", part) for index, part in enumerate(parts) if part]
    counts = prepare_upsert(*job_of(root, ranges_of(owned), *files), lambda _: None)
    own = {key: value for key, value in entries.items() if parse_key(key).slot in owned}
    put = {key: value for key, value in own.items() if value is not None}
    assert (counts.entries, counts.deletes) == (len(put), len(own) - len(put))
    before: Entries = {meta_key(b"k", slot): b"before" for slot in range(61)}
    expected = {key: value for key, value in (before | own).items() if value is not None}
    assert over(root, before) == expected
    identity = published(ShardPaths(root / "shard"), "person", V1)
    assert identity is not None
    assert (identity.keys, identity.entries, identity.deletes) == (counts.keys, counts.entries, counts.deletes)
    assert slot_set(identity.slots) == owned


def test_whole_files_are_the_staged_ones(tmp_path: Path) -> None:
    one = sst(tmp_path / "one.sst", {meta_key(b"k", slot): b"v" for slot in range(9)})
    two = sst(tmp_path / "two.sst", {meta_key(b"k", slot): None for slot in range(10, 20)})
    prepare_upsert(*job_of(tmp_path, ALL, one, two), lambda _: None)
    names = noted_files(directory(tmp_path))
    assert names is not None
    assert names.keys() == {"one.sst", "two.sst"}
    assert (directory(tmp_path) / names["one.sst"]).samefile(one.path)
    assert not (directory(tmp_path) / names["two.sst"]).samefile(two.path)
    assert sources(directory(tmp_path)) == {names["one.sst"]: "one.sst"}


def test_a_call_of_an_earlier_preparation_takes_in_nothing_of_the_next(tmp_path: Path) -> None:
    """A shard runs a command to its end, though the sidecar that gave it has long begun anew for other slots."""
    few, more = SlotRange(first=0, last=4), SlotRange(first=0, last=9)
    staged = sst(tmp_path / "one.sst", {meta_key(b"k", slot): encode_string(b"new") for slot in range(20)})
    database = Database.open_live(tmp_path / "live", BlockCache(1 << 20), 1 << 20)
    gate = Gate()
    engine = Engine(LiveStore(database), DatasetIndex(), lambda: 0, HotCache(1 << 20))
    upserts = Upserts(engine, gate, tmp_path / "scratch", lambda: slot_set(ALL))

    def prepared(slots: SlotRange) -> tuple[Unit, list[Path]]:
        prepare_upsert(*job_of(tmp_path, (slots,), staged), lambda _: None)
        return Unit("person", "k", V1, "b", (slots,)), list(directory(tmp_path).glob("*.sst"))

    async def overtaken() -> None:
        with gate.hold([b"k"]):
            under_way = asyncio.create_task(upserts.ingest(*prepared(few)))
            await asyncio.sleep(0)  # it has begun, and ends no sooner than the gate opens
            again = prepared(more)
        with pytest.raises(NodeError):
            await under_way
        assert upserts.status() == {}
        assert await upserts.ingest(*again)
        assert upserts.status()["person"].slots == (more,)

    try:
        asyncio.run(overtaken())
        assert {key for key, _ in database.entries_from(meta_key(b"k", 0)) if parse_key(key).kind is Kind.META} == {
            meta_key(b"k", slot) for slot in range(10)
        }
    finally:
        database.close()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"keys": 1}, CountMismatchError),
        ({"deletes": 2}, CountMismatchError),
        ({"content_digest": "0" * 64}, ChecksumMismatchError),
        ({"deletes": 0, "sha256": "0" * 64}, ChecksumMismatchError),
    ],
)
def test_what_is_not_as_promised_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, change: dict[str, int | str], error: type[Exception]
) -> None:
    file = sst(tmp_path / "one.sst", {meta_key(b"k", slot): None if slot == 3 else b"v" for slot in range(9)})
    wrong = replace(file, **change)  # type: ignore[arg-type]  # its own fields
    with pytest.raises(error, match=r"builds/one\.sst"):
        prepare_upsert(*job_of(tmp_path, ALL, wrong), lambda _: None)
    assert not directory(tmp_path).exists()
    assert not list(ShardPaths(tmp_path / "shard").making.iterdir())
