"""Files taken into the live database of a running shard: once, all or nothing, between two commands."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rocksdict import Options, SstFileWriter

from pipeline.format.admin import ShardStatus, UpsertStatus, decode_refusal
from pipeline.format.errors import NodeError, PrefixOverlapError, RedkvError, SlotsMovedError, StaleEpochError
from pipeline.format.keys import Kind, element_head, element_version, meta_key
from pipeline.format.slots import SLOT_COUNT, SlotRange, key_slot
from pipeline.format.values import ValueType, encode_big, encode_hash, encode_string
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards, topology_of

BUILD, V1, V2 = "build-1", "2026-11-22.2", "2026-11-22.10"
ALL = (SlotRange(first=0, last=SLOT_COUNT - 1),)
DONE, BEFORE = b":1\r\n", b":0\r\n"


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path) as [one]:
        yield one


@pytest.fixture
def admin(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.admin_socket) as client:
        yield client


@pytest.fixture
def client(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.port) as one:
        yield one


def sst(path: Path, entries: Mapping[bytes, bytes | None]) -> Path:
    """A file of entries; None is a tombstone."""
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(path))
    for key, value in sorted(entries.items()):
        if value is None:
            del writer[key]
        else:
            writer[key] = value
    writer.finish()
    return path


def strings(names: Mapping[str, str | None]) -> dict[bytes, bytes | None]:
    return {meta_key(name.encode()): None if value is None else encode_string(value.encode()) for name, value in names.items()}


def upsert(
    admin: RawClient, files: list[Path], slots: str = "0-16383", version: str = V1, build: str = BUILD, prefix: str = "user:"
) -> bytes:
    return admin.call("REDKV", "UPSERT", "users", prefix, version, build, slots, *map(str, files))


def refusal(reply: bytes) -> RedkvError:
    assert reply.startswith(b"-REDKV "), reply
    return decode_refusal(reply[1:-2].decode())


def upserts(admin: RawClient) -> dict[str, UpsertStatus]:
    return ShardStatus.from_json(admin.call("REDKV", "STATUS").partition(b"\r\n")[2], "STATUS").upserts


def test_rows_replace_live_keys_and_later_writes_stand(shard: ShardProcess, admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    for name in ("user:1", "user:2", "user:3"):
        client.call("SET", name, "old")
    assert client.call("GET", "user:1") == b"$3\r\nold\r\n"  # is a hot value now
    file = sst(tmp_path / "a.sst", strings({"user:1": "new", "user:2": None, "user:9": "new"}))
    copy = tmp_path / "copy.sst"
    copy.hardlink_to(file)
    assert upsert(admin, [file]) == DONE
    assert not file.exists()
    assert client.call("MGET", "user:1") == b"*1\r\n$3\r\nnew\r\n"
    assert client.call("GET", "user:2") == b"$-1\r\n"
    assert client.call("GET", "user:3") == b"$3\r\nold\r\n"
    assert client.call("GET", "user:9") == b"$3\r\nnew\r\n"
    client.call("SET", "user:1", "newer")
    shard.kill()
    shard.start()
    with RawClient(shard.admin_socket) as again, RawClient(shard.port) as reader:
        assert upsert(again, [copy]) == BEFORE
        assert copy.exists(), "what is not taken is left alone"
        assert reader.call("GET", "user:1") == b"$5\r\nnewer\r\n"
        assert upserts(again) == {"users": UpsertStatus(version=V1, build_id=BUILD, slots=ALL)}


def test_a_collection_is_replaced_as_a_whole(admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    key, slot = b"user:h", key_slot(b"user:h")
    client.call("HSET", key, "before", "1")
    head = element_head(Kind.HASH_FIELD, key, 77, slot)
    entries: dict[bytes, bytes | None] = {head + b"f%d" % number: b"v%d" % number for number in range(1_000)}
    assert upsert(
        admin, [sst(tmp_path / "m.sst", {meta_key(key): encode_big(ValueType.HASH, 77, 1_000)}), sst(tmp_path / "e.sst", entries)]
    )
    assert client.call("HLEN", key) == b":1000\r\n"
    assert client.call("HGET", key, "f999") == b"$4\r\nv999\r\n"
    assert client.call("HGET", key, "before") == b"$-1\r\n"
    small = sst(tmp_path / "s.sst", {meta_key(key): encode_hash([(b"after", b"2")])})
    assert upsert(admin, [small], version=V2, build="build-2") == DONE
    assert client.call("HGETALL", key) == b"*2\r\n$5\r\nafter\r\n$1\r\n2\r\n"


def test_what_is_not_ingested_leaves_nothing(admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    good = sst(tmp_path / "good.sst", strings({"user:1": "x"}))
    bad = tmp_path / "bad.sst"
    bad.write_bytes(b"no table" * 100)
    assert isinstance(refusal(upsert(admin, [good, bad])), NodeError)
    assert client.call("GET", "user:1") == b"$-1\r\n"
    assert upserts(admin) == {}
    assert upsert(admin, [good]) == DONE, "the good file is still there"
    assert b"are no slots" in upsert(admin, [good], slots="x")


def test_what_is_in_is_told_by_slots(admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    """A slot that is gained later brings its rows; one whose rows are in is never taken again."""
    name = "user:1"
    slot = key_slot(name.encode())
    assert upsert(admin, [], slots=f"0-{slot - 1}") == DONE, "a unit of whose slots this shard has no row"
    assert upsert(admin, [sst(tmp_path / "a.sst", strings({name: "x"}))], slots=f"{slot}") == DONE
    client.call("SET", name, "newer")
    again = sst(tmp_path / "b.sst", strings({name: "x"}))
    assert upsert(admin, [again], slots=f"3,{slot}") == BEFORE
    moved = refusal(upsert(admin, [again], slots=f"{slot}-{slot + 1}"))
    assert isinstance(moved, SlotsMovedError)
    assert moved.fields["slots"] == str(slot)
    assert client.call("GET", name) == b"$5\r\nnewer\r\n"
    assert upserts(admin)["users"].slots == (SlotRange(first=0, last=slot),)
    assert isinstance(refusal(upsert(admin, [tmp_path / "none.sst"], slots="16383")), NodeError)


def test_rows_of_slots_that_are_another_shards_are_refused(shard: ShardProcess, admin: RawClient, tmp_path: Path) -> None:
    half = topology_of([shard], [[SlotRange(first=0, last=99)]], epoch=2)
    shard.paths.topology.write_bytes(half.to_json())
    assert admin.call("REDKV", "TOPOLOGY") == b":2\r\n"
    file = sst(tmp_path / "a.sst", strings({"user:1": "x"}))
    assert isinstance(refusal(upsert(admin, [file], slots="50-100")), SlotsMovedError)
    assert file.exists()
    assert upserts(admin) == {}


def test_an_older_version_does_not_undo_a_newer_one(admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    for number, version in enumerate((V1, V2)):
        file = sst(tmp_path / f"{version}.sst", strings({"user:1": version}))
        assert upsert(admin, [file], version=version, build=f"build-{number}") == DONE
    assert upserts(admin) == {"users": UpsertStatus(version=V2, build_id="build-1", slots=ALL)}
    late = sst(tmp_path / "late.sst", strings({"user:1": "late"}))
    assert isinstance(refusal(upsert(admin, [late], build="build-0")), StaleEpochError)
    assert client.call("GET", "user:1") == b"$13\r\n%b\r\n" % V2.encode()


def test_another_build_of_a_version_does_not_mix_with_what_is_there(admin: RawClient, client: RawClient, tmp_path: Path) -> None:
    key, slot = b"user:h", key_slot(b"user:h")
    head = element_head(Kind.HASH_FIELD, key, element_version(V1), slot)

    def file(build: str, fields: int) -> Path:
        entries: dict[bytes, bytes | None] = {head + b"f%d" % number: b"v" for number in range(fields)}
        return sst(tmp_path / f"{build}.sst", {meta_key(key): encode_big(ValueType.HASH, element_version(V1), fields), **entries})

    assert upsert(admin, [file(BUILD, 900)]) == DONE
    refused = refusal(upsert(admin, [file("build-2", 600)], build="build-2"))
    assert isinstance(refused, StaleEpochError)
    assert BUILD in refused.message
    assert client.call("HLEN", key) == b":900\r\n"
    assert client.call("HGETALL", key).count(b"$") == 2 * 900


def test_keys_of_a_replace_dataset_are_not_upserted(admin: RawClient, tmp_path: Path) -> None:
    assert admin.call("REDKV", "REGISTER", "people", "user:p") == b"+OK\r\n"
    file = sst(tmp_path / "a.sst", strings({"user:1": "x"}))
    assert isinstance(refusal(upsert(admin, [file])), PrefixOverlapError)
    assert file.exists()


def test_clients_write_on_while_units_come_in(shard: ShardProcess, admin: RawClient, tmp_path: Path) -> None:
    stop = threading.Event()
    wrong: list[bytes] = []

    def write() -> None:
        with RawClient(shard.port) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                words = b"%d" % number
                writer.call("SET", "user:mine", words)
                got = writer.call("GET", "user:mine")
                if got != b"$%d\r\n%b\r\n" % (len(words), words):
                    wrong.append(got)

    threads = [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        for unit in range(20):
            file = sst(tmp_path / f"{unit}.sst", strings({f"user:{unit}:{number}": "x" * 50 for number in range(2_000)}))
            assert upsert(admin, [file], slots=f"{unit}") == DONE
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    with RawClient(shard.port) as reader:
        assert reader.call("GET", "user:19:1999") == b"$50\r\n%b\r\n" % (b"x" * 50)
    assert upserts(admin)["users"].slots == (SlotRange(first=0, last=19),)
