"""Versions that are active and not as they should be: lost or broken under a running shard, made for fewer slots, failed for good."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.format.admin import DatasetStatus, ShardStatus
from pipeline.format.desired import Goal
from pipeline.format.slots import SlotRange, even_ranges, key_slot
from pipeline.format.values import encode_string
from pipeline.load.states import State
from pipeline.load.status import NodeStatus
from pipeline.store import ObjectStore
from tests.support.proxy import Proxy
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, topology_of
from tests.support.sidecars import Head, NodeUnderTest, node_under_test
from tests.support.values import read_all
from tests.support.versions import BuiltVersion, build_version

V1, V2 = "2026-11-21", "2026-11-22"
PREFIX = "person:"
HALVES = [[one] for one in even_ranges(2)]


def strings(seed: int, count: int = 600, value_bytes: int = 16) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


@pytest.fixture
def node(tmp_path: Path, s3: S3, proxy: Proxy, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards, through=proxy) as one:
        one.start()
        yield one


def activate(node: NodeUnderTest, head: Head, store: ObjectStore, rows: dict[bytes, bytes]) -> BuiltVersion:
    built = build_version(store, "person", V1, rows, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    return built


def served(shard: ShardProcess) -> DatasetStatus:
    with RawClient(shard.admin_socket) as client:
        return ShardStatus.from_json(client.call("REDKV", "STATUS").partition(b"\r\n")[2], "STATUS").datasets["person"]


@contextmanager
def reading(shard: ShardProcess, key: bytes) -> Iterator[set[bytes]]:
    """A client that reads one key all the time; the replies that it got."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        with RawClient(shard.port) as client:
            while not ended.is_set():
                seen.add(client.call("GET", key))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def of_shard(rows: dict[bytes, bytes], slots: SlotRange) -> bytes:
    return next(key for key in rows if key_slot(key) in slots)


def flip_a_byte(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key).data)
    data[len(data) // 2] ^= 1
    store.delete(key)
    store.create(key, bytes(data))


def test_a_directory_lost_under_a_running_shard_is_made_again_and_no_reader_notices(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = strings(1)
    activate(node, head, s3.store, rows)
    lost = shards[0].paths.version("person", V1)
    with reading(shards[0], of_shard(rows, HALVES[0][0])) as replies:
        lost.rename(shards[0].data_dir / "lost")  # at once: half of it would be made again while the rest goes
        node.wake()
        node.until_true("the directory to be made again, and served", lambda _: lost.exists() and served(shards[0]).current)
        node.until("person", V1, State.ACTIVE)
    assert len(replies) == 1, replies
    assert read_all(shards, rows) == rows
    shards[0].kill()
    shards[0].start()
    assert read_all(shards, rows) == rows


def test_slots_that_a_shard_gains_are_refused_until_they_are_loaded(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = strings(2)
    before, gained = SlotRange(first=8192, last=12_000), SlotRange(first=12_001, last=16_383)
    head.topology(topology_of(shards, [HALVES[0], [before]], epoch=2))
    activate(node, head, s3.store, rows)
    old_key, new_key = of_shard(rows, before), of_shard(rows, gained)
    node.ask("PUT", "limits", {"bandwidth_bytes_s": 1})
    with reading(shards[1], old_key) as replies, RawClient(shards[1].port) as client:
        assert client.call("GET", new_key).startswith(b"-CLUSTERDOWN")
        head.topology(topology_of(shards, [HALVES[0], [before, gained]], epoch=3))
        node.wake()
        node.until_true("the topology to be followed", lambda _: not client.call("GET", new_key).startswith(b"-CLUSTERDOWN"))
        refused = client.call("GET", new_key)
        assert refused.startswith(b"-LOADING slot %d of dataset 'person'" % key_slot(new_key)), refused
        assert client.call("EXISTS", new_key) == refused
        node.ask("PUT", "limits", {"bandwidth_bytes_s": None})
        node.until_true("the gained slots", lambda _: not client.call("GET", new_key).startswith(b"-LOADING"))
    assert len(replies) == 1, replies
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, rows) == rows


def test_a_directory_replaced_while_nobody_told_the_shard_is_opened_by_the_next_sidecar(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = strings(3)
    activate(node, head, s3.store, rows)
    node.kill()
    path = shards[0].paths.version("person", V1)
    shutil.copytree(path, path.with_name("copy"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)
    assert not served(shards[0]).current
    node.start()
    node.until_true("the shard to open it", lambda _: served(shards[0]).current)
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, rows) == rows


def test_a_directory_that_a_shard_cannot_open_is_made_again(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    rows = strings(4)
    activate(node, head, s3.store, rows)
    shards[0].stop()
    node.kill()
    (shards[0].paths.version("person", V1) / "CURRENT").write_text("nonsense\n")
    shards[0].start()
    assert (served(shards[0]).active, served(shards[0]).opened) == (V1, ())
    node.start()
    node.until_true("the shard to serve it", lambda _: served(shards[0]).opened == (V1,))
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, rows) == rows


def test_a_fatal_failure_is_tried_again_by_itself_where_clients_shall_read_else_when_asked(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = strings(5)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    other = build_version(s3.store, "plane", V1, {b"plane:1": encode_string(b"x")}, prefix="plane:")
    wrong = [one.manifest.files[0].object_key for one in (built, other)]
    for key in wrong:
        flip_a_byte(s3.store, key)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]), plane=("plane:", [other.wanted(Goal.STAGED)]))
    node.wake()
    node.until("person", V1, State.FAILED)
    node.until("plane", V1, State.FAILED)
    for key in wrong:
        flip_a_byte(s3.store, key)
    node.until_true("person to be served", lambda status: _is_well(status, "person"))  # a try that began before may still fail
    assert read_all(shards, rows) == rows
    node.until("plane", V1, State.FAILED)
    node.wake()
    node.until_tried_again("plane", V1)
    node.until("plane", V1, State.STAGED)


def _is_well(status: NodeStatus, dataset: str) -> bool:
    found = status.find(dataset, V1)
    return found is not None and found.state is State.ACTIVE and found.error is None


def test_what_can_not_be_removed_is_told_and_keeps_nothing_else_from_being_loaded(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    stray = shards[0].paths.making / f"person@2020-01-01@{'x' * 230}"  # too long a name to become a longer one
    stray.mkdir(parents=True)
    shards[1].paths.topology.unlink()
    shards[1].paths.topology.mkdir()  # the topology can't be written there either
    head.topology(topology_of(shards, HALVES, epoch=2))
    rows = strings(6)
    activate(node, head, s3.store, rows)
    assert read_all(shards, rows) == rows
    node.until_true("what went wrong", lambda status: status.error is not None and status.error["error"] == "IngestProcessError")
    for what in (f"removing {stray}", f"telling shard {shards[1].name} the topology"):
        assert f"{what} was refused" in node.log
    shards[1].paths.topology.rmdir()
    stray.rmdir()
    node.until_true("nothing to complain of", lambda status: status.error is None)
