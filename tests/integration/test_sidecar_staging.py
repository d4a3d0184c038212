"""Downloads from real S3: resumed, stopped, refused; and the two documents: followed, remembered, refused."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Timer

import pytest

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.documents import Documents, Hold
from ingest_sidecar.download import download
from ingest_sidecar.plan import PlannedFile
from ingest_sidecar.stage import StagedFile, Tools
from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import (
    ChecksumMismatchError,
    FormatError,
    FormatVersionError,
    IngestProcessError,
    ObjectChangedError,
    ObjectMissingError,
    StaleEpochError,
)
from pipeline.format.layout import PARTIAL_SUFFIX, NodePaths, desired_key
from pipeline.format.manifest import ManifestFile
from pipeline.format.slots import SlotRange
from pipeline.format.topology import Topology
from pipeline.store import Blob, ObjectStore
from tests.support.s3 import S3
from tests.support.sidecars import Head

RANGE = 1 << 20
BYTES = 6 * RANGE + 17
DATA = random.Random(20_261_123).randbytes(BYTES)


def planned(s3: S3, content: bytes, promised: bytes = DATA) -> PlannedFile:
    key = "builds/b/00000-1-000.sst"
    s3.store.create(key, content)
    file = ManifestFile(
        object_key=key,
        slots=SlotRange(first=0, last=1),
        smallest=b"a",
        largest=b"b",
        keys=1,
        entries=1,
        deletes=0,
        bytes=len(promised),
        sha256=hashlib.sha256(promised).hexdigest(),
        content_digest="0" * 64,
    )
    return PlannedFile(file, "00000-1-000.sst")


def stage(
    s3: S3, one: PlannedFile, folder: Path, counted: list[int] | None = None, bucket: TokenBucket | None = None, stop_after: int = BYTES
) -> tuple[Path, list[int]]:
    """One file by three threads, in ranges; told to stop when so many bytes are counted."""
    counted = [] if counted is None else counted
    stopped = Event()

    def count(staged: int) -> None:
        counted.append(staged)
        if sum(counted) > stop_after:
            stopped.set()

    tools = Tools(s3.store, bucket or TokenBucket(), "node-1", count, lambda _: None, stopped, RANGE)
    with ThreadPoolExecutor(3) as threads:
        asyncio.run(download(tools, [one], folder, threads, lambda: None))
    return folder / one.name, counted


@pytest.mark.parametrize("there", [0, 1, RANGE, BYTES - 1, BYTES])
def test_a_part_goes_on_from_its_end(s3: S3, tmp_path: Path, there: int) -> None:
    one = planned(s3, DATA)
    (tmp_path / f"{one.name}{PARTIAL_SUFFIX}").write_bytes(DATA[:there])
    path, counted = stage(s3, one, tmp_path)
    assert path.read_bytes() == DATA
    assert sum(counted) == BYTES
    assert list(tmp_path.iterdir()) == [path]
    assert stage(s3, one, tmp_path) == (path, [BYTES])


@pytest.mark.parametrize("torn", [bytes(100), DATA + b"more", DATA[:-1] + b"x"])
def test_a_torn_part_is_fetched_anew(s3: S3, tmp_path: Path, torn: bytes) -> None:
    one = planned(s3, DATA)
    (tmp_path / f"{one.name}{PARTIAL_SUFFIX}").write_bytes(torn)
    path, counted = stage(s3, one, tmp_path)
    assert path.read_bytes() == DATA
    assert sum(counted) == BYTES


@pytest.mark.parametrize("content", [DATA[:-1], DATA + b"more", DATA[:-1] + bytes([DATA[-1] ^ 1]), b""])
def test_a_wrong_object_is_named_and_leaves_nothing(s3: S3, tmp_path: Path, content: bytes) -> None:
    one = planned(s3, content)
    counted: list[int] = []
    with pytest.raises(ChecksumMismatchError, match="nothing of it was ingested") as refused:
        stage(s3, one, tmp_path, counted)
    assert refused.value.fields["object"] == one.file.object_key
    assert sum(counted) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_something_else_wrote_into_is_fetched_anew(s3: S3, tmp_path: Path) -> None:
    one = planned(s3, DATA)
    counted: list[int] = []
    file = StagedFile(Tools(s3.store, TokenBucket(), "node-1", counted.append, lambda _: None, Event()), one, tmp_path)
    assert not file.begin()
    for start, end in file.ranges():
        file.fetch(start, end)
    [part] = tmp_path.glob(f"*{PARTIAL_SUFFIX}")
    with part.open("ab") as other:
        other.write(b"more")
    with pytest.raises(IngestProcessError, match=f"has {BYTES + 4} bytes, {BYTES} were written"):
        file.finish()
    assert sum(counted) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_object_is_named(s3: S3, tmp_path: Path) -> None:
    one = planned(s3, DATA)
    s3.store.delete(one.file.object_key)
    with pytest.raises(ObjectMissingError):
        stage(s3, one, tmp_path)


def test_a_download_that_is_stopped_keeps_what_it_has(s3: S3, tmp_path: Path) -> None:
    one = planned(s3, DATA)
    stage(s3, one, tmp_path, stop_after=RANGE // 2)
    [part] = tmp_path.glob(f"*{PARTIAL_SUFFIX}")
    kept = part.stat().st_size
    assert 0 < kept < BYTES
    assert part.read_bytes() == DATA[:kept]
    path, counted = stage(s3, one, tmp_path)
    assert path.read_bytes() == DATA
    assert counted[0] == min(kept, RANGE)


def test_an_object_written_anew_while_it_is_read_has_its_own_error(s3: S3, tmp_path: Path) -> None:
    one = planned(s3, DATA)

    class Changing(list[int]):
        def append(self, staged: int) -> None:
            super().append(staged)
            if len(self) == 1:
                key = one.file.object_key  # in one step: other ranges ask at the same time, and would find nothing in between
                s3.store.replace(key, bytes(BYTES), s3.store.get(key).etag)

    with pytest.raises(ObjectChangedError, match="written anew") as refused:
        stage(s3, one, tmp_path, Changing())
    assert refused.value.fields["object"] == one.file.object_key


def test_an_object_written_anew_while_nobody_read_it_has_the_same_error_and_the_next_try_goes_by_its_bytes(s3: S3, tmp_path: Path) -> None:
    one = planned(s3, DATA)
    stage(s3, one, tmp_path, stop_after=RANGE // 2)
    s3.store.delete(one.file.object_key)
    s3.store.create(one.file.object_key, bytes(BYTES))
    with pytest.raises(ObjectChangedError):
        stage(s3, one, tmp_path)
    s3.store.delete(one.file.object_key)
    s3.store.create(one.file.object_key, DATA)  # mended
    path, _ = stage(s3, one, tmp_path)
    assert path.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [path]


def test_the_bandwidth_holds_for_all_and_rises_while_they_wait(s3: S3, tmp_path: Path) -> None:
    one, bucket = planned(s3, DATA), TokenBucket(1.0)
    timer = Timer(0.2, bucket.set_limit, [None])
    timer.start()
    path, _ = stage(s3, one, tmp_path, bucket=bucket)  # at a byte per second, it would take weeks
    timer.join()
    assert path.read_bytes() == DATA
    assert bucket.waited_s > 0


def documents(s3: S3, folder: Path, cluster: str = "test") -> Documents:
    return Documents(s3.store, cluster, NodePaths(folder))


def test_documents_are_followed_and_remembered(s3: S3, tmp_path: Path) -> None:
    head, followed = Head(s3.store), documents(s3, tmp_path)
    followed.refresh()
    assert (followed.topology, followed.desired) == (None, None)
    head.topology(Topology(cluster="test", epoch=7, nodes=()))
    head.want()
    older = head.desired
    head.want()
    followed.refresh()
    followed.refresh()
    assert followed.desired == head.desired
    again = documents(s3, tmp_path)
    assert (again.memory.topology_epoch, again.memory.desired_epoch) == (7, 2)
    head.put_back(older)
    for one in (followed, again):
        with pytest.raises(StaleEpochError) as refused:
            one.refresh()
        assert (refused.value.fields["epoch"], refused.value.fields["followed"]) == (1, 2)
    assert followed.desired == head.desired
    assert again.desired is None


class Busy(ObjectStore):
    """A store into which somebody writes right after the next read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.write: Callable[[], object] = lambda: None

    def get_if_changed(self, key: str, etag: str | None) -> Blob | None:
        try:
            return super().get_if_changed(key, etag)
        finally:
            write, self.write = self.write, lambda: None
            write()


def test_no_desired_state_is_followed_with_a_topology_from_before_it(s3: S3, tmp_path: Path) -> None:
    head, store = Head(s3.store), Busy(s3.url)
    followed = Documents(store, "test", NodePaths(tmp_path))
    head.topology(Topology(cluster="test", epoch=7, nodes=()))
    followed.refresh()

    def write() -> None:
        head.topology(Topology(cluster="test", epoch=8, nodes=()))
        head.want()

    store.write = write
    for desired in (None, head.desired.model_copy(update={"epoch": 1})):
        followed.refresh()
        assert followed.topology is not None
        assert (followed.topology.epoch, followed.desired) == (8, desired)


def test_what_operators_say_at_the_same_time_is_all_remembered(s3: S3, tmp_path: Path) -> None:
    head, followed = Head(s3.store), documents(s3, tmp_path)
    versions = [
        DesiredVersion(version=f"2026-11-{day}", build_id="b", manifest_key="m", manifest_sha256="0" * 64, goal=Goal.READY)
        for day in range(10, 26)
    ]
    head.topology(Topology(cluster="test", epoch=7, nodes=()))
    head.want(person=("person:", versions))
    with ThreadPoolExecutor(len(versions) + 2) as threads:
        said = [threads.submit(followed.hold, "person", one, Hold.PAUSED) for one in versions]
        said += [threads.submit(followed.refresh), threads.submit(followed.forget_holds)]
        for one in said:
            one.result()
    for memory in (followed.memory, documents(s3, tmp_path).memory):
        assert (memory.topology_epoch, memory.desired_epoch, len(memory.holds)) == (7, 1, len(versions))


def test_a_document_of_another_cluster_or_time_is_refused(s3: S3, tmp_path: Path) -> None:
    s3.store.create(desired_key("test"), Desired(cluster="other", epoch=1).to_json())
    with pytest.raises(FormatError, match="of cluster other, not of test"):
        documents(s3, tmp_path).refresh()
    s3.store.create(desired_key("next"), b'{"format_version": 999}')
    with pytest.raises(FormatVersionError):
        documents(s3, tmp_path, "next").refresh()
