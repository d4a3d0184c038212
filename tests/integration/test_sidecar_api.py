"""The sidecar's HTTP: token, health, readiness, description, metrics, limits; and one version paused, resumed, cancelled, tried again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.format.crashpoints import IngestPoint
from pipeline.format.desired import Goal
from pipeline.format.values import encode_string
from pipeline.load.states import State
from pipeline.load.status import Throttle
from tests.support.crash import Trap
from tests.support.disk import lying_below
from tests.support.proxy import Proxy
from tests.support.s3 import S3
from tests.support.shards import ShardProcess
from tests.support.sidecars import HTTP, WAIT_S, Head, NodeUnderTest, node_under_test
from tests.support.values import read_all, reading, refused_all
from tests.support.versions import BuiltVersion, build_version

V1 = "2026-11-21"
PREFIX = "person:"
TOKEN = "a-token-of-the-test"


def strings(seed: int, count: int = 900, value_bytes: int = 3000) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


@pytest.fixture
def node(tmp_path: Path, s3: S3, proxy: Proxy, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards, {"downloads_max": 1, "token": TOKEN}, through=proxy) as one:
        one.start()
        yield one


def want(head: Head, s3: S3, rows: dict[bytes, bytes], goal: Goal) -> BuiltVersion:
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    head.want(person=(PREFIX, [built.wanted(goal)]))
    return built


def left_on_disk(node: NodeUnderTest) -> list[str]:
    made = [root for one in node.shards for root in (one.paths.making, one.paths.versions)]
    return [*map(str, lying_below(*made, node.paths.removed)), *map(str, node.staged_files())]


def test_it_says_how_it_is_to_those_who_may_ask(node: NodeUnderTest, head: Head, s3: S3) -> None:
    rows = strings(1, 100)
    built = want(head, s3, rows, Goal.ACTIVE)
    node.wake()
    node.until("person", V1, State.ACTIVE)
    paths = node.ask("GET", "openapi.json").json()["paths"]
    for path in paths:
        url = f"http://127.0.0.1:{node.port}{path}".replace("{dataset}", "person").replace("{version}", V1)
        method = "POST" if "post" in paths[path] else "GET"
        answer = HTTP.request(method, url)
        assert (answer.status_code == httpx.codes.UNAUTHORIZED) == (path not in {"/v1/health", "/v1/ready"}), path
    assert HTTP.get(f"http://127.0.0.1:{node.port}/v1/ready").json() == {"ready": True, "missing": []}
    metrics = node.ask("GET", "metrics").text
    assert f'redkv_sidecar_bytes_total{{step="stage"}} {float(built.manifest.totals.bytes)}' in metrics
    assert 'redkv_sidecar_step_seconds_count{step="activate"} 1.0' in metrics
    assert 'redkv_sidecar_versions{state="active"} 1.0' in metrics


def test_it_stands_behind_others_for_the_cpu(node: NodeUnderTest) -> None:
    assert node.process is not None
    mine, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, node.process.pid))
    assert its == min(19, mine + 10)


def test_it_is_not_ready_without_a_shard(node: NodeUnderTest, head: Head, shards: list[ShardProcess]) -> None:
    head.want()
    shards[1].kill()
    node.until_true("the shard to be missed", lambda _: node.ask("GET", "ready").json()["missing"] == ["shard node-1-b"])
    assert node.ask("GET", "ready").status_code == httpx.codes.SERVICE_UNAVAILABLE


def test_the_bandwidth_is_changed_while_it_downloads(node: NodeUnderTest, head: Head, s3: S3) -> None:
    limits = node.ask("PUT", "limits", {"bandwidth_bytes_s": 1})
    assert limits.json()["bandwidth_bytes_s"] == 1
    built = want(head, s3, strings(2), Goal.STAGED)
    node.wake()
    node.until("person", V1, State.STAGING)
    assert node.status().throttle.rate == 1
    node.control("pause", "person", V1)
    node.until_true("the pause", lambda _: _step(node) == "paused by an operator")
    node.control("resume", "person", V1)
    node.until("person", V1, State.STAGING)
    assert node.ask("PUT", "limits", {"bandwidth_bytes_s": None}).status_code == httpx.codes.OK
    assert node.until("person", V1, State.STAGED).bytes_done == built.manifest.totals.bytes
    wrong = node.ask("PUT", "limits", {"bandwidth_bytes_s": 0})
    assert (wrong.status_code, wrong.json()["error"]) == (httpx.codes.BAD_REQUEST, "UsageError")


def test_it_slows_down_for_readers_to_its_floor_and_says_why(tmp_path: Path, s3: S3, head: Head, shards: list[ShardProcess]) -> None:
    """With a budget that no reader can keep; what is loaded gets through all the same. Without readers, it does not slow down."""
    node = NodeUnderTest(tmp_path, s3.url, s3.environment, shards, {"readers_p99_ms_max": 0.0001, "pace_min": 0.2})
    try:
        node.start()
        assert node.status().throttle.pace == 1.0
        rows = strings(4, 200)
        with reading(shards[0]):
            node.until_true("the floor, and why", lambda status: _is_slow(status.throttle))
            want(head, s3, rows, Goal.ACTIVE)
            node.wake()
            node.until("person", V1, State.ACTIVE)
            assert "redkv_sidecar_readers_p99_seconds" in node.ask("GET", "metrics").text
        assert read_all(shards, rows) == rows
        node.until_true("it to rise again", lambda status: status.throttle.pace > 0.2)
    finally:
        node.kill()


@pytest.mark.parametrize("state", [State.STAGING, State.STAGED, State.INGESTING, State.READY])
def test_a_version_is_paused_resumed_cancelled_and_tried_again(
    tmp_path: Path, node: NodeUnderTest, head: Head, s3: S3, proxy: Proxy, shards: list[ShardProcess], state: State
) -> None:
    rows = strings(3)
    goal = Goal.STAGED if state in {State.STAGING, State.STAGED} else Goal.READY
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    filled = Trap(IngestPoint.FILLED, tmp_path, "STOP")
    if state is State.STAGING:
        proxy.hold_after(built.manifest.files[0].bytes)
    if state is State.INGESTING:
        node.kill()
        node.launch(filled.environment)
        node.until_answers()
    head.want(person=(PREFIX, [built.wanted(goal)]))
    node.wake()
    if state is State.STAGING:
        assert proxy.held.wait(WAIT_S)
    if state is State.INGESTING:
        filled.wait()
        assert os.sched_getscheduler(filled.pid) == os.SCHED_IDLE
    node.until("person", V1, state)
    node.control("pause", "person", V1)
    proxy.release()
    node.until_true("the pause", lambda status: _step(node) == "paused by an operator")
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the newer goal", lambda status: status.desired_epoch == 2)
    node.kill()
    node.start()
    node.until_true("the pause, still", lambda status: _step(node) == "paused by an operator")
    node.until_true("its keys to be refused", lambda _: refused_all(shards, rows, b"LOADING"))
    node.control("cancel", "person", V1)
    error = node.until("person", V1, State.FAILED).error
    assert error is not None
    assert error["error"] == "VersionCancelledError"
    node.until_true("its files to be gone", lambda _: not left_on_disk(node))
    node.control("retry", "person", V1)
    assert node.until("person", V1, State.ACTIVE).error is None
    assert read_all(shards, rows) == rows
    refused = node.ask("POST", f"versions/person/{V1}/cancel")
    assert (refused.status_code, refused.json()["error"]) == (httpx.codes.CONFLICT, "VersionActiveError")
    for one in shards:
        one.kill()
    unsure = node.ask("POST", f"versions/person/{V1}/cancel")
    assert (unsure.status_code, unsure.json()["error"]) == (httpx.codes.SERVICE_UNAVAILABLE, "ShardUnavailableError")
    unknown = node.ask("POST", "versions/person/2020-01-01/pause")
    assert (unknown.status_code, unknown.json()["error"]) == (httpx.codes.NOT_FOUND, "UnknownVersionError")


def _is_slow(throttle: Throttle) -> bool:
    """At the floor, because of the readers: a second without any of their commands lets it rise a little."""
    slow = throttle.pace == 0.2 and throttle.rate is not None and throttle.p99_us is not None
    return slow and "the budget 0 us" in throttle.reason


def _step(node: NodeUnderTest) -> str:
    found = node.status().find("person", V1)
    return found.step if found is not None and found.paused else ""
