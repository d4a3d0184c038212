"""What is under way while versions come and go: pipelines, cursors and long answers; and how much work a swap is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event

import psutil
import pytest

from pipeline.format.keys import Kind, element_head
from pipeline.format.values import ValueType, encode_big, encode_hash, encode_string
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

OK = b"+OK\r\n"
V1, V2 = "2026-11-22", "2026-11-23"
MARKS = {V1: b"one", V2: b"two"}
KEYS = 300
FIELDS = 9_000  # several turns of the loop


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path) as [one]:
        yield one


@pytest.fixture
def admin(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.admin_socket) as client:
        assert client.call("REDKV", "REGISTER", "plane", "plane_") == OK
        yield client


def publish(shard: ShardProcess, version: str) -> None:
    """Small hashes, and a big one, whose values all are the version's mark."""
    mark = MARKS[version]
    rows = {b"plane_%d" % number: encode_hash([(b"f%d" % field, mark) for field in range(6)]) for number in range(KEYS)}
    rows[b"plane_big"] = encode_big(ValueType.HASH, 1, FIELDS)
    head = element_head(Kind.HASH_FIELD, b"plane_big", 1)
    elements = {head + b"f%05d" % field: mark for field in range(FIELDS)}
    publish_version(shard.paths, "plane", version, rows, build_id=f"build-{version}", elements=elements)


def swap(shard: ShardProcess, admin: RawClient, version: str) -> None:
    """Activate a version, and drop the other: closed, and its directory gone."""
    assert admin.call("REDKV", "ACTIVATE", "plane", version) == OK
    other = V2 if version == V1 else V1
    assert admin.call("REDKV", "CLOSE", "plane", other) == OK
    shutil.rmtree(shard.paths.version("plane", other))


def marks_of(reply: bytes) -> set[bytes]:
    """The values in the reply to HGETALL, whose fields start with `f`."""
    lines = reply.split(b"\r\n")
    return set(lines[4::4])


def test_pipelines_meet_one_version_per_command_and_no_gap(shard: ShardProcess, admin: RawClient) -> None:
    publish(shard, V1)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    stop = Event()
    swaps = 20

    def read(seed: int) -> list[bytes]:
        chosen, seen = random.Random(seed), []
        with RawClient(shard.port) as client:
            while not stop.is_set():
                keys = [chosen.randrange(KEYS) for _ in range(400)]
                client.send(b"".join(b"HGETALL plane_%d\r\n" % key for key in keys))
                for _ in keys:
                    (mark,) = marks_of(client.reply())
                    seen.append(mark)
        return seen

    with ThreadPoolExecutor(3) as readers:
        running = [readers.submit(read, seed) for seed in range(3)]
        try:
            for number in range(swaps):
                version = V1 if number % 2 else V2
                publish(shard, version)
                swap(shard, admin, version)
        finally:
            stop.set()
        for one in running:
            seen = one.result()
            assert set(seen) <= set(MARKS.values())
            assert sum(before != after for before, after in pairwise(seen)) <= swaps  # none goes back


def test_long_answers_under_way_finish_on_their_version_though_it_is_dropped(shard: ShardProcess, admin: RawClient) -> None:
    publish(shard, V1)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    with RawClient(shard.port) as client:
        for number in range(6):
            version = V1 if number % 2 else V2
            publish(shard, version)
            client.send(b"HGETALL plane_big\r\nHSCAN plane_big 0 COUNT 8000\r\nHGETALL plane_big\r\n")
            swap(shard, admin, version)
            first, page, last = (client.reply() for _ in range(3))
            order = [MARKS[V2 if version == V1 else V1], MARKS[version]]
            seen = [marks_of(first), set(page.split(b"\r\n")[7::4]), marks_of(last)]
            assert all(len(one) == 1 for one in seen), seen
            places = [order.index(one.copy().pop()) for one in seen]
            assert places == sorted(places)  # the old version, then the new one, and no way back
            assert client.call("HGET", "plane_big", "f00000") == b"$3\r\n%b\r\n" % MARKS[version]


def test_a_cursor_goes_on_or_says_that_the_scan_must_begin_again(shard: ShardProcess, admin: RawClient) -> None:
    publish(shard, V1)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    with RawClient(shard.port) as client:
        for version in (V2, V1, V2):
            cursor = client.call("HSCAN", "plane_big", 0, "COUNT", 100).split(b"\r\n")[2]
            cursor = client.call("HSCAN", "plane_big", cursor, "COUNT", 100).split(b"\r\n")[2]
            publish(shard, version)
            swap(shard, admin, version)
            refused = client.call("HSCAN", "plane_big", cursor, "COUNT", 100)
            assert refused == b"-ERR the cursor is of another version of the dataset: start the scan again with cursor 0\r\n"
            fields: list[bytes] = []
            cursor = b"0"
            while True:
                lines = client.call("HSCAN", "plane_big", cursor, "COUNT", 2_000).split(b"\r\n")
                assert set(lines[7::4]) == {MARKS[version]}
                fields += lines[5::4]
                cursor = lines[2]
                if cursor == b"0":
                    break
            assert sorted(fields) == [b"f%05d" % field for field in range(FIELDS)]


def test_a_scan_of_the_keyspace_misses_nothing_over_swaps(shard: ShardProcess, admin: RawClient) -> None:
    publish(shard, V1)
    assert admin.call("REDKV", "ACTIVATE", "plane", V1) == OK
    with RawClient(shard.port) as client:
        for number in range(50):
            assert client.call("SET", f"own:{number}", "x") == OK
        found: list[bytes] = []
        cursor, pages = b"0", 0
        while True:
            lines = client.call("SCAN", cursor, "COUNT", 20).split(b"\r\n")
            cursor, pages = lines[2], pages + 1
            found += lines[5::2]
            if cursor == b"0":
                break
            version = V1 if pages % 2 == 0 else V2
            publish(shard, version)
            swap(shard, admin, version)
        assert pages > 10
        expected = {*(b"plane_%d" % number for number in range(KEYS)), b"plane_big", *(b"own:%d" % number for number in range(50))}
        assert set(found) == expected
        assert len(found) == len(expected)


@pytest.mark.parametrize("megabytes", [2, 40])
def test_a_swap_reads_no_data_whatever_the_size(shard: ShardProcess, admin: RawClient, megabytes: int) -> None:
    """Counted by the kernel: what the shard read by any system call, its sockets too."""
    chosen = random.Random(1)
    for version in (V1, V2):
        rows = {b"plane_%d" % number: encode_string(chosen.randbytes(4_000)) for number in range(megabytes * 250)}
        publish_version(shard.paths, "plane", version, rows, build_id=f"build-{version}")
    data_bytes = sum(path.stat().st_size for path in shard.paths.version("plane", V1).iterdir())
    assert data_bytes > megabytes * 1_000_000
    assert shard.process is not None
    process = psutil.Process(shard.process.pid)

    def read_by(*commands: tuple[str, str]) -> int:
        before = process.io_counters().read_chars
        for command, version in commands:
            assert admin.call("REDKV", command, "plane", version) == OK
        return int(process.io_counters().read_chars - before)

    opened = read_by(("OPEN", V1), ("OPEN", V2))
    assert opened < data_bytes / 50  # footers, indexes and filters of the files
    assert read_by(("ACTIVATE", V1)) < FEW_BYTES
    assert read_by(("ACTIVATE", V2)) < FEW_BYTES
    assert read_by(("CLOSE", V1)) < FEW_BYTES
    assert read_by(("ACTIVATE", V1)) < data_bytes / 50  # the way back, to a version that was closed
    assert read_by(("CLOSE", V2)) < FEW_BYTES
    with RawClient(shard.port) as client:
        assert len(client.call("GET", "plane_1")) > 4_000


FEW_BYTES = 16 << 10  # the command, VERSION.json, and what a loop's wake-ups read
