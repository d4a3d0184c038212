"""Loads through an object store that misbehaves: real SeaweedFS behind a proxy that refuses, cuts, stalls and changes what it sends.

Each load ends complete, with the content that was built, or failed by the right name while the version before serves on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.format.desired import Goal
from pipeline.format.slots import even_ranges
from pipeline.format.values import encode_string
from pipeline.load.states import State
from tests.support.faults import Fault, Faults, Kind, faulty_proxy
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, running_shards, topology_of
from tests.support.sidecars import Head, NodeUnderTest
from tests.support.values import read_all
from tests.support.versions import BuiltVersion, build_version

V1, V2, V3 = "2026-11-21", "2026-11-22", "2026-11-23"
PREFIX = "person:"
SST = "/builds/"  # the part of a path that only a version's files have


def strings(seed: int, count: int = 300, value_bytes: int = 1000) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


OLD, NEW = strings(1), strings(2)


@pytest.fixture
def faults(s3: S3) -> Iterator[Faults]:
    port = urlsplit(s3.environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    with faulty_proxy(port) as one:
        yield one


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[list[ShardProcess]]:
    with running_shards(tmp_path, 1) as one:
        yield one


@pytest.fixture
def head(s3: S3, shards: list[ShardProcess]) -> Head:
    head = Head(s3.store)
    head.topology(topology_of(shards, [even_ranges(1)]))
    return head


@pytest.fixture
def node(tmp_path: Path, s3: S3, faults: Faults, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    environment = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{faults.port}"}
    one = NodeUnderTest(tmp_path, s3.url, environment, shards, {"silence_s_max": 2.0})
    try:
        one.start()
        yield one
    finally:
        one.kill()


@pytest.fixture
def old(node: NodeUnderTest, head: Head, s3: S3) -> BuiltVersion:
    """The version before, active."""
    built = build_version(s3.store, "person", V1, OLD, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    return built


@pytest.mark.parametrize("kind", ["500", "503", "reset", "truncated", "stalled"])
def test_what_passes_is_lived_through(
    node: NodeUnderTest, head: Head, s3: S3, faults: Faults, shards: list[ShardProcess], old: BuiltVersion, kind: Kind
) -> None:
    built = build_version(s3.store, "person", V2, NEW, prefix=PREFIX)
    fault = Fault(kind, SST, times=4)
    faults.faults.append(fault)
    head.want(person=(PREFIX, [old.wanted(Goal.RETIRED), built.wanted(Goal.ACTIVE)]))
    node.wake()
    assert node.until("person", V2, State.ACTIVE).error is None
    assert fault.met == fault.times
    assert read_all(shards, NEW) == NEW
    if kind not in {"500", "503"}:  # these are repeated within the S3 client
        assert 'redkv_sidecar_retries_total{error="StoreUnavailableError",step="stage"}' in node.ask("GET", "metrics").text


@pytest.mark.parametrize(("kind", "name"), [("wrong", "ChecksumMismatchError"), ("expired", "StoreAccessError")])
def test_what_does_not_pass_has_its_name_and_the_version_before_serves_on(
    node: NodeUnderTest, head: Head, s3: S3, faults: Faults, shards: list[ShardProcess], old: BuiltVersion, kind: Kind, name: str
) -> None:
    built = build_version(s3.store, "person", V2, NEW, prefix=PREFIX)
    faults.faults.append(Fault(kind, SST, times=10_000))
    head.want(person=(PREFIX, [old.wanted(Goal.ACTIVE), built.wanted(Goal.READY)]))
    node.wake()
    error = node.until("person", V2, State.FAILED).error
    assert error is not None
    assert (error["error"], error["outcome"]) == (name, "fatal")
    assert error["acts"].startswith("the operator")
    assert error["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert read_all(shards, OLD) == OLD
    node.until("person", V1, State.ACTIVE)
    faults.faults.clear()
    node.control("retry", "person", V2)
    node.until("person", V2, State.READY)


def test_a_store_that_is_away_is_waited_for(
    node: NodeUnderTest, head: Head, s3: S3, faults: Faults, shards: list[ShardProcess], old: BuiltVersion
) -> None:
    built = build_version(s3.store, "person", V2, NEW, prefix=PREFIX)
    fault = Fault("503", "desired.json", times=10_000)
    faults.faults.append(fault)
    node.until_true("the store to be missed", lambda status: status.error is not None and status.error["error"] == "StoreUnavailableError")
    head.want(person=(PREFIX, [old.wanted(Goal.RETIRED), built.wanted(Goal.ACTIVE)]))
    node.wake()
    assert read_all(shards, OLD) == OLD
    faults.faults.clear()
    node.until("person", V2, State.ACTIVE)
    assert read_all(shards, NEW) == NEW


def test_a_node_that_was_down_for_two_loads_catches_up(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], old: BuiltVersion
) -> None:
    node.kill()
    shards[0].kill()
    second = build_version(s3.store, "person", V2, strings(3), prefix=PREFIX)
    head.want(person=(PREFIX, [old.wanted(Goal.RETIRED), second.wanted(Goal.ACTIVE)]))
    third = build_version(s3.store, "person", V3, NEW, prefix=PREFIX)
    head.want(person=(PREFIX, [second.wanted(Goal.RETIRED), third.wanted(Goal.ACTIVE)]))
    shards[0].start()
    node.start()
    node.until("person", V3, State.ACTIVE)
    assert read_all(shards, NEW) == NEW
    node.until_true("the first version to be gone", lambda _: not shards[0].paths.version("person", V1).exists())
