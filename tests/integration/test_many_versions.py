"""Nothing grows with the number of versions ever loaded: neither on the disk nor in the processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.format.desired import Goal
from pipeline.format.slots import even_ranges
from pipeline.format.values import encode_string
from pipeline.load.states import State
from tests.support.disk import lying_below
from tests.support.resp import RawClient
from tests.support.s3 import S3, s3_store
from tests.support.shards import ShardProcess, running_shards, topology_of
from tests.support.sidecars import Head, NodeUnderTest
from tests.support.versions import BuiltVersion, build_version

FIRST, LAST = 3, 8  # from the third on, there is one active version, one retired, and one that was removed


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_store() as one:
        yield one


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path, 1) as [one]:
        yield one


@pytest.fixture
def node(tmp_path: Path, s3: S3, shard: ShardProcess) -> Iterator[NodeUnderTest]:
    one = NodeUnderTest(tmp_path, s3.url, s3.environment, [shard])
    try:
        one.start()
        yield one
    finally:
        one.kill()


def size(node: NodeUnderTest, shard: ShardProcess) -> dict[str, object]:
    """What there is: files by folder, open files, threads, what is remembered, what is told."""
    assert shard.process is not None
    assert node.process is not None
    with RawClient(shard.port) as client:
        bulk_lines = client.call("INFO", "bulk").count(b"dataset_")
    return {
        "versions": len([path for path in lying_below(shard.paths.versions) if path.is_dir()]),
        "files": len([path for path in lying_below(shard.paths.versions) if path.suffix == ".sst"]),
        "making": len(lying_below(shard.paths.making)),
        "staged": len(node.staged_files()),
        "open in the shard": len(open_versions(shard)),
        "open in the sidecar": len(psutil.Process(node.process.pid).open_files()),
        "remembered": sorted(json.loads(node.paths.memory.read_text())["holds"]),
        "told": {name: len(versions) for name, versions in node.status().datasets.items()},
        "metrics": len([line for line in node.ask("GET", "metrics").text.splitlines() if line.startswith("redkv_sidecar_versions")]),
        "datasets in INFO": bulk_lines,
    }


def open_versions(shard: ShardProcess) -> list[str]:
    """The files of versions that a shard has open."""
    assert shard.process is not None
    return [one.path for one in psutil.Process(shard.process.pid).open_files() if "/versions/" in one.path]


def threads(shard: ShardProcess) -> int:
    assert shard.process is not None
    return psutil.Process(shard.process.pid).num_threads()


def test_the_eighth_version_takes_what_the_third_took(node: NodeUnderTest, shard: ShardProcess, s3: S3) -> None:
    head = Head(s3.store)
    head.topology(topology_of([shard], [even_ranges(1)]))
    before: BuiltVersion | None = None
    sizes, threads_of = {}, {}
    for day in range(1, LAST + 1):
        version = f"2026-11-{day:02d}"
        built = build_version(
            s3.store, "person", version, {b"person:%d" % one: encode_string(b"%d" % day) for one in range(50)}, prefix="person:"
        )
        kept = [before.wanted(Goal.RETIRED)] if before else []
        head.want(person=("person:", [*kept, built.wanted(Goal.ACTIVE)]))
        node.wake()
        node.until("person", version, State.ACTIVE)
        if before is not None:
            node.until("person", before.manifest.version, State.RETIRED)
        before = built
        if day in {FIRST, LAST}:
            node.until_true("the older ones to be gone", lambda _: len(list((shard.paths.versions / "person").iterdir())) == 2)
            node.until_true("an orderly disk", lambda _: not lying_below(shard.paths.making) and not node.staged_files())
            node.until_true("the older ones to be closed", lambda _: all(f"/{version}/" in path for path in open_versions(shard)))  # noqa: B023 -- called here
            sizes[day], threads_of[day] = size(node, shard), threads(shard)
    assert sizes[LAST] == sizes[FIRST]
    assert threads_of[LAST] - threads_of[FIRST] < LAST - FIRST  # one more at times: a pool's threads come as they are needed
