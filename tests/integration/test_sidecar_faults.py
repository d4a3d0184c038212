"""What a sidecar does when something is wrong or dies: wrong bytes, broken connections, kills at bad moments, older documents."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ingest_sidecar.progress import sidecar_point
from pipeline.format.admin import ShardStatus
from pipeline.format.crashpoints import IngestPoint
from pipeline.format.desired import Goal
from pipeline.format.layout import PARTIAL_SUFFIX
from pipeline.format.slots import even_ranges, key_slot
from pipeline.format.values import encode_string
from pipeline.load.states import Event, State
from pipeline.store import ObjectStore
from tests.support.crash import Trap
from tests.support.disk import lying_below
from tests.support.proxy import Proxy
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess
from tests.support.sidecars import WAIT_S, Head, NodeUnderTest, node_under_test
from tests.support.values import read_all, refused_all
from tests.support.versions import build_version

V1, V2 = "2026-11-21", "2026-11-22"
PREFIX = "person:"


def strings(seed: int, count: int, value_bytes: int = 16) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


@pytest.fixture
def node(tmp_path: Path, s3: S3, proxy: Proxy, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards, {"downloads_max": 1}, through=proxy) as one:
        one.start()
        yield one


def flip_a_byte(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key).data)
    data[len(data) // 2] ^= 1
    with tempfile.NamedTemporaryFile() as changed:
        changed.write(data)
        changed.flush()
        store.upload(Path(changed.name), key, hashlib.sha256(data).hexdigest())


@contextmanager
def ingesting(node: NodeUnderTest, folder: Path, point: IngestPoint = IngestPoint.FILLED) -> Iterator[psutil.Process]:
    """Start the sidecar again; its ingest process, which stands at that point, and goes on at the end."""
    trap = Trap(point, folder, "STOP")
    node.stop()
    node.launch(trap.environment)
    trap.wait()
    try:
        yield psutil.Process(trap.pid)
    finally:
        trap.go_on()


def test_a_flipped_byte_is_named_and_the_active_version_serves_on(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    old = strings(1, 600)
    good = build_version(s3.store, "person", V1, old, prefix=PREFIX)
    head.want(person=(PREFIX, [good.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    bad = build_version(s3.store, "person", V2, strings(2, 600), prefix=PREFIX)
    wrong = bad.manifest.files[1].object_key
    flip_a_byte(s3.store, wrong)
    other = build_version(s3.store, "plane", V1, {b"plane:1": encode_string(b"x")}, prefix="plane:")
    head.want(person=(PREFIX, [good.wanted(Goal.ACTIVE), bad.wanted(Goal.STAGED)]), plane=("plane:", [other.wanted(Goal.ACTIVE)]))
    node.wake()
    error = node.until("person", V2, State.FAILED).error
    assert error is not None
    assert (error["error"], error["outcome"]) == ("ChecksumMismatchError", "fatal")
    assert error["fields"]["object"] == wrong
    assert error["fields"]["node"] == "node-1"
    assert error["fields"]["expected"] == bad.manifest.files[1].sha256
    node.until("plane", V1, State.ACTIVE)
    assert node.until("person", V1, State.ACTIVE).error is None
    assert read_all(shards, old) == old
    assert not any(one.paths.version("person", V2).exists() for one in shards)
    head.want(person=(PREFIX, [good.wanted(Goal.ACTIVE)]), plane=("plane:", [other.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the failed version to be gone", lambda status: status.find("person", V2) is None)
    node.until_true("its files to be gone", lambda _: not node.staged_files())


def test_a_byte_that_changes_in_the_made_directory_is_found_before_anything_is_published(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], tmp_path: Path
) -> None:
    old = strings(1, 600)
    good = build_version(s3.store, "person", V1, old, prefix=PREFIX)
    head.want(person=(PREFIX, [good.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    filled = Trap(IngestPoint.FILLED, tmp_path, "STOP")
    node.stop()
    node.launch(filled.environment)
    node.until_answers()
    new = build_version(s3.store, "person", V2, strings(2, 600), prefix=PREFIX, partitions=even_ranges(2))
    head.want(person=(PREFIX, [good.wanted(Goal.ACTIVE), new.wanted(Goal.READY)]))
    node.wake()
    filled.wait()
    [made] = [path for one in shards for path in one.paths.making.glob("*/*.sst")]
    changed = bytearray(made.read_bytes())
    changed[len(changed) // 2] ^= 1
    made.write_bytes(changed)
    filled.go_on()
    error = node.until("person", V2, State.FAILED).error
    assert error is not None
    assert error["error"] == "ChecksumMismatchError"
    expected = {"dataset": "person", "version": V2, "node": "node-1", "object": new.manifest.files[0].object_key}
    assert error["fields"].items() >= expected.items()
    assert all(word in error["message"] for word in expected.values())
    key = error["fields"]["key"]  # of the block that the byte lies in: it does not read any more
    assert key.startswith(PREFIX)
    assert error["message"].endswith(f"; the first key that differs is {key}")
    assert read_all(shards, old) == old
    assert not any(one.paths.version("person", V2).exists() for one in shards)
    node.wake()  # somebody asks again: nothing that lay here is taken, so it comes whole from the store
    node.until_tried_again("person", V2)
    node.until("person", V2, State.READY)


def test_a_value_that_is_another_in_one_nodes_copy_keeps_the_version_from_clients_and_its_key_is_named(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], tmp_path: Path
) -> None:
    """A sound SST file, of the same size, in which one value is another: only its content tells. No sample is in it."""
    rows = strings(1, 300)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX, partitions=even_ranges(2), samples_every=1000)
    victim = b"person:200"
    staged = Trap(sidecar_point(State.STAGED, Event.INGEST), tmp_path, "STOP")
    node.stop()
    node.launch(staged.environment)
    node.until_answers()
    head.want(person=(PREFIX, [built.wanted(Goal.READY)]))
    node.wake()
    staged.wait()
    changed = {**rows, victim: bytes([*rows[victim][:-1], rows[victim][-1] ^ 1])}
    elsewhere = s3.fresh().store
    wrong = build_version(elsewhere, "person", V1, changed, prefix=PREFIX, partitions=even_ranges(2), samples_every=1000)
    assert [one.bytes for one in wrong.manifest.files] == [one.bytes for one in built.manifest.files]
    slot = key_slot(victim)
    [index] = [index for index, one in enumerate(built.manifest.files) if slot in one.slots]
    path = node.paths.staged_build("person", V1, built.manifest.build_id) / Path(built.manifest.files[index].object_key).name
    path.write_bytes(elsewhere.get(wrong.manifest.files[index].object_key).data)
    staged.go_on()
    error = node.until("person", V1, State.FAILED).error
    assert error is not None
    expected = {"dataset": "person", "version": V1, "node": "node-1", "key": victim.decode()}
    assert error["fields"].items() >= expected.items()
    assert all(word in error["message"] for word in expected.values())
    assert read_all(shards, rows) == dict.fromkeys(rows)


def test_a_sample_that_reads_otherwise_keeps_the_version_from_clients(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = strings(1, 300)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX, wrong_samples=frozenset({b"person:7"}))
    head.want(person=(PREFIX, [built.wanted(Goal.READY)]))
    node.wake()
    error = node.until("person", V1, State.FAILED).error
    assert error is not None
    assert error["error"] == "SampleMismatchError"
    fields = error["fields"]
    assert (fields["dataset"], fields["version"], fields["node"], fields["key"]) == ("person", V1, "node-1", "person:7")
    assert fields["shard"] in {"node-1-a", "node-1-b"}
    assert read_all(shards, rows) == dict.fromkeys(rows)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("its keys to be refused", lambda _: refused_all(shards, rows, b"LOADING"))


def test_connections_that_break_again_and_again_end_in_the_same_bytes(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], proxy: Proxy
) -> None:
    rows = strings(3, 900, value_bytes=3000)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    proxy.cut_after = 600_000
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    found = node.until("person", V1, State.ACTIVE)
    assert proxy.cuts > 2
    assert found.bytes_done == built.manifest.totals.bytes
    assert read_all(shards, rows) == rows


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_ended_while_staging_it_goes_on_from_the_last_byte(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], proxy: Proxy, end: str
) -> None:
    rows = strings(4, 1500, value_bytes=6000)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    first = built.manifest.files[0].bytes
    assert first > 2 << 20
    proxy.hold_after(first - (512 << 10))
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    assert proxy.held.wait(WAIT_S)
    node.until_true("bytes to be counted", lambda status: (found := status.find("person", V1)) is not None and found.bytes_done > 0)
    getattr(node, end)()
    [part] = node.paths.staging.rglob(f"*{PARTIAL_SUFFIX}")
    kept = part.stat().st_size
    assert 0 < kept < first
    proxy.release()
    before = proxy.answered_bytes
    node.start()
    node.until("person", V1, State.ACTIVE)
    assert proxy.answered_bytes - before < built.manifest.totals.bytes - kept + (256 << 10)
    assert read_all(shards, rows) == rows


def test_a_part_that_a_power_cut_tore_is_fetched_anew(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    node.stop()
    rows = strings(5, 300)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    folder = node.paths.staged_build("person", V1, built.manifest.build_id)
    folder.mkdir(parents=True)
    name = Path(built.manifest.files[0].object_key).name
    (folder / f"{name}{PARTIAL_SUFFIX}").write_bytes(bytes(1000))
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.start()
    assert node.until("person", V1, State.ACTIVE).bytes_done == built.manifest.totals.bytes
    assert read_all(shards, rows) == rows


def test_killed_while_ingesting_it_makes_the_same_content(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], tmp_path: Path
) -> None:
    """The ingest process dies with its sidecar, what it left is removed, and nothing is published by halves."""
    rows = strings(6, 8_000)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.READY)]))
    for point in (IngestPoint.BEGUN, IngestPoint.FILLED):
        with ingesting(node, tmp_path, point) as process:
            assert not any(one.paths.version("person", V1).exists() for one in shards)
            node.kill()
        _, alive = psutil.wait_procs([process], timeout=WAIT_S)
        assert not alive
    node.start()
    node.until("person", V1, State.READY)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    found = node.until("person", V1, State.ACTIVE)
    assert sum(one.entries for one in found.shards.values()) == len(rows)
    assert read_all(shards, rows) == rows
    node.until_true("what was begun to be gone", lambda _: not lying_below(*(one.paths.making for one in shards)))


def test_an_ingest_process_that_is_killed_is_started_again(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], tmp_path: Path
) -> None:
    rows = strings(7, 8_000)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    with ingesting(node, tmp_path) as process:
        process.kill()
    node.until("person", V1, State.ACTIVE)
    assert "IngestProcessError" in node.log
    assert read_all(shards, rows) == rows


def test_an_older_document_is_refused_also_after_a_restart(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    rows = strings(8, 50)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    head.want()
    older = head.desired
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    head.put_back(older)
    node.wake()
    stale = "StaleEpochError"
    node.until_true("the refusal", lambda status: status.error is not None and status.error["error"] == stale)
    assert node.status().desired_epoch == 2
    assert node.until("person", V1, State.ACTIVE)
    node.kill()
    node.start()
    node.until_true("the refusal", lambda status: status.error is not None and status.error["error"] == stale)
    assert read_all(shards, rows) == rows
    head.desired = head.desired.model_copy(update={"epoch": 2})
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the newer document", lambda status: status.desired_epoch == 3 and status.error is None)


def test_a_manifest_that_was_changed_is_refused(node: NodeUnderTest, head: Head, s3: S3) -> None:
    built = build_version(s3.store, "person", V1, strings(9, 50), prefix=PREFIX)
    wanted = built.wanted(Goal.STAGED)
    flip_a_byte(s3.store, wanted.manifest_key)
    head.want(person=(PREFIX, [wanted]))
    node.wake()
    error = node.until("person", V1, State.FAILED).error
    assert error is not None
    assert (error["error"], error["fields"]["object"]) == ("ChecksumMismatchError", wanted.manifest_key)


def test_a_version_that_goes_while_it_is_downloaded_leaves_nothing(node: NodeUnderTest, head: Head, s3: S3, proxy: Proxy) -> None:
    built = build_version(s3.store, "person", V1, strings(10, 1500, value_bytes=6000), prefix=PREFIX)
    proxy.hold_after(built.manifest.files[0].bytes)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    assert proxy.held.wait(WAIT_S)
    proxy.release_new()
    head.want()
    node.wake()
    node.until_true("the version to be forgotten", lambda status: not status.datasets)
    proxy.release()
    node.until_true("its files to be gone", lambda _: not node.staged_files())


def test_a_shard_that_is_away_is_waited_for(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    rows = strings(11, 200)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    shards[1].kill()
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    away = "ShardUnavailableError"
    node.until_true(
        "the missing shard to be named",
        lambda status: (found := status.find("person", V1)) is not None and found.error is not None and found.error["error"] == away,
    )
    shards[1].start()
    node.until("person", V1, State.ACTIVE)
    shards[0].kill()
    shards[0].start()
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, rows) == rows


def test_a_shard_that_lost_everything_gets_it_again(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    rows = strings(12, 200)
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    lost = shards[0]
    lost.kill()
    for path in (lost.paths.live, lost.paths.versions):
        path.rename(path.with_name(f"lost-{path.name}"))
    lost.start()

    def serves(_: object) -> bool:
        with RawClient(lost.admin_socket) as client:
            status = ShardStatus.from_json(client.call("REDKV", "STATUS").partition(b"\r\n")[2], "STATUS")
        return "person" in status.datasets and status.datasets["person"].active == V1

    node.until_true("the shard to serve again", serves)
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, rows) == rows


def test_sigterm_ends_it_in_order_and_its_ingest_process_with_it(node: NodeUnderTest, head: Head, s3: S3, tmp_path: Path) -> None:
    built = build_version(s3.store, "person", V1, strings(13, 8_000), prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    with ingesting(node, tmp_path) as process:
        assert node.stop() == 0
        assert not process.is_running()


def test_a_second_sidecar_waits_for_the_first(node: NodeUnderTest, tmp_path: Path, s3: S3, shards: list[ShardProcess]) -> None:
    second = NodeUnderTest(tmp_path, s3.url, s3.environment, shards)
    try:
        second.start()
        second.until_true("the refusal", lambda status: status.error is not None and "another sidecar" in status.error["message"])
        node.kill()
        second.until_true("its turn", lambda status: status.error is None or "another sidecar" not in status.error["message"])
    finally:
        second.kill()
    assert node.paths.lock.exists()
