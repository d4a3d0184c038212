"""The commands about versions, as users type them, on two real nodes: versions, verify, pause and its like, inspect, gc; and retention."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.format.errors import ConcurrentLoadError
from pipeline.format.layout import DATASETS_ROOT, manifest_key, version_root, versions_root
from pipeline.format.manifest import Manifest
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.spec import DatasetSpec
from tests.support.builds import hash_spec
from tests.support.clusters import ROWS, Cluster, running_cluster
from tests.support.listener import Recorder
from tests.support.s3 import S3

V1, V2, V3, V4 = "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24"


@pytest.fixture(scope="module")
def whole(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("cli")) as one:
        yield one


@pytest.fixture
def cluster(whole: Cluster) -> Iterator[Cluster]:
    yield whole
    whole.more_settings = ""


def loaded(cluster: Cluster, name: str, *versions: str, **more: Any) -> DatasetSpec:
    spec = hash_spec(name, f"{name}:${{id}}", **more)
    for version in versions:
        cluster.load(spec, version)
    return spec


def manifest_of(cluster: Cluster, dataset: str, version: str) -> Manifest:
    found = cluster.documents.manifest(dataset, version)
    assert found is not None
    return found[0]


def told(cluster: Cluster, *arguments: str) -> Any:
    done = cluster.redkv(*arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_versions_tells_source_size_marks_and_where_each_of_them_is(cluster: Cluster) -> None:
    spec = loaded(cluster, "all", V1, V2, V3, source={"table": "features.rows", "where": "ds = '${date}'"})
    cluster.swapper().rollback("all", mark_bad=True)
    found = {one["version"]: one for one in told(cluster, "versions", "all")["versions"]}
    assert {version: one["mark"] for version, one in found.items()} == {V1: "", V2: "active", V3: "bad"}
    assert {version: one["goal"] for version, one in found.items()} == {V1: None, V2: "active", V3: "retired"}
    assert found[V2]["nodes"] == {name: {"state": "active", "error": None} for name in "ab"}
    assert found[V1]["nodes"]["a"]["state"] == "absent"
    assert (found[V2]["source"], found[V2]["filter"]) == ("features.rows", f"ds = '{V2}'")
    assert (found[V2]["rows"], found[V2]["keys"]) == (ROWS, ROWS)
    assert found[V2]["bytes"] == manifest_of(cluster, "all", V2).totals.bytes
    text = cluster.redkv("versions", "all").stdout
    assert "features.rows where ds = '2026-11-22'" in text
    assert f"bad, by {cluster.documents.author}" in text
    cluster.load(spec, V4)
    assert next(one for one in told(cluster, "versions", "all")["versions"] if one["mark"] == "previous")["version"] == V2


def test_history_tells_who_did_what_when_in_order(cluster: Cluster) -> None:
    loaded(cluster, "told", V1, V2)
    assert cluster.redkv("--as", "ann", "rollback", "told").returncode == 0
    records = told(cluster, "versions", "told", "--history")["history"]
    builds = [(one["action"], one["version"], one["epoch"]) for one in records if one["action"] == "build"]
    assert builds == [("build", V1, None), ("build", V2, None)]
    changes = [(one["action"], one["version"], one["before"]) for one in records if one["epoch"]]
    assert changes == [
        ("load", V1, None),
        ("activate", V1, None),
        ("load", V2, None),
        ("activate", V2, V1),
        ("rollback", V1, V2),
    ]
    assert records[-1]["by"] == "ann"
    assert [one["at_ms"] for one in records] == sorted(one["at_ms"] for one in records)
    assert told(cluster, "versions", "told", "--history", "--last", "1")["history"] == records[-1:]
    assert "rollback" in cluster.redkv("versions", "told", "--history").stdout


def test_verify_reads_every_copy_of_active_and_retired_versions(cluster: Cluster) -> None:
    spec = loaded(cluster, "sound", V1, V2)
    samples = len(manifest_of(cluster, "sound", V1).samples)
    for version in (V2, V1):
        found = told(cluster, "verify", "sound", version)
        assert (found["keys"], found["samples_checked"], found["problems"]) == (ROWS, samples, [])
        assert sorted(found["nodes"]) == ["a", "b"]
        assert {one["active"] for node in found["nodes"].values() for one in node} == {version == V2}
    assert f"sound {V2} (build " in cluster.redkv("verify", "sound").stdout
    assert cluster.goals(spec) == {V1: "retired", V2: "active"}
    assert cluster.swapper().rollback("sound").version == V1  # what was opened for the look is no hindrance


def test_verify_names_the_shard_and_the_node_of_a_copy_that_is_gone(cluster: Cluster) -> None:
    loaded(cluster, "unsound", V1, V2)
    directory = cluster.shards[1].paths.version("unsound", V1)
    (directory / "VERSION.json").rename(directory / "away")
    done = cluster.redkv("verify", "unsound", V1)
    assert done.returncode == 1
    assert f"shard {cluster.shards[1].name} of b has no directory of unsound {V1}" in done.stderr
    refused = cluster.redkv("verify", "unsound", V3)
    assert (refused.returncode, f"unsound {V3} is not on the nodes: they hold {V1}, {V2}" in refused.stderr) == (2, True)


def test_a_load_is_paused_resumed_and_cancelled_on_all_nodes(cluster: Cluster) -> None:
    spec = loaded(cluster, "held", V1)
    cluster.build(spec, V2)
    refused = cluster.redkv("pause", "held", V2)
    assert (refused.returncode, f"held {V2} is not on its way to the nodes" in refused.stderr) == (2, True)
    paused = {"done": False}

    def pause() -> None:
        if not paused["done"]:
            paused["done"] = True
            assert told(cluster, "pause", "held", V2)["nodes"] == {"a": None, "b": None}

    with ThreadPoolExecutor(1) as pool:
        recorder = Recorder(on_step={Step.INGEST: pause})
        running = pool.submit(cluster.load, spec, V2, recorder)
        for node in cluster.nodes:
            node.until_true("a paused version", lambda status: getattr(status.find("held", V2), "paused", False))
        assert cluster.served(spec) == {V1}
        assert cluster.redkv("resume", "held", V2).returncode == 0
        assert running.result(60).changed
    assert cluster.served(spec) == {V2}
    active = cluster.redkv("cancel", "held", V2)
    assert (active.returncode, "`redkv rollback held` first" in active.stderr) == (1, True)
    cluster.build(spec, V3)
    with pytest.raises(ConcurrentLoadError, match=f"held {V3}"):
        cluster.load(spec, V3, Recorder(on_step={Step.INGEST: lambda: told(cluster, "--as", "ann", "cancel", "held", V3)}))
    assert cluster.goals(spec) == {V1: "retired", V2: "active"}
    deeds = [one for one in cluster.history(spec) if one.action != "build"]
    assert [(str(one.action), one.version) for one in deeds[-4:]] == [("resume", V2), ("activate", V2), ("load", V3), ("cancel", V3)]
    assert deeds[-1].by == "ann"


def test_retention_keeps_what_it_says_on_nodes_and_in_the_store(cluster: Cluster) -> None:
    spec = loaded(cluster, "kept", "2026-11-19", "2026-11-20", V1, V2, V3)
    assert cluster.goals(spec) == {V2: "retired", V3: "active"}
    wanted = {V2, V3}
    for node in cluster.nodes:
        node.until_true("the older ones to be gone", lambda _: cluster.on_disk(spec) == wanted)
    assert told(cluster, "gc", "--dry-run")["versions"] == []  # by default the store keeps all
    cluster.more_settings = "[retention.store]\nversions = 3\ndelay_hours = 0\n[retention.nodes]\nversions = 0"
    listed = told(cluster, "gc", "--dry-run")
    assert [one["version"] for one in listed["versions"] if one["dataset"] == "kept"] == ["2026-11-19", "2026-11-20"]
    assert [(one["dataset"], one["version"]) for one in listed["nodes"] if one["dataset"] == "kept"] == [("kept", V2)]
    before = {one.key for one in cluster.store.list(DATASETS_ROOT)}
    gone = {one.key for version in ("2026-11-19", "2026-11-20") for one in cluster.store.list(version_root("kept", version))}
    assert {manifest_key("kept", version) for version in ("2026-11-19", "2026-11-20")} < gone
    done = cluster.redkv("gc")
    assert done.returncode == 0, done.stderr
    assert "kept 2026-11-19 in the store: " in done.stdout
    left = {one.key for one in cluster.store.list(versions_root("kept"))}
    assert left == {one for one in before - gone if one.startswith(versions_root("kept"))}
    assert cluster.goals(spec) == {V3: "active"}
    for node in cluster.nodes:
        node.until_true("the nodes to follow", lambda _: cluster.on_disk(spec) == {V3})
    assert cluster.served(spec) == {V3}
    assert [(str(one.action), one.version) for one in cluster.history(spec)[-2:]] == [("retire", V2), ("gc", None)]
    assert told(cluster, "gc", "--dry-run")["nodes"] == []


def test_a_version_that_was_left_a_moment_ago_waits_for_the_delay(cluster: Cluster) -> None:
    cluster.more_settings = "[retention.nodes]\nversions = 0\ndelay_hours = 1"
    spec = loaded(cluster, "late", V1, V2)
    assert cluster.goals(spec) == {V1: "retired", V2: "active"}


def test_inspect_looks_into_spec_manifest_sst_and_key(cluster: Cluster) -> None:
    spec = loaded(cluster, "seen", V1)
    assert told(cluster, "inspect", "spec", str(cluster.spec_file(spec)))["prefix"] == "seen:"
    assert told(cluster, "inspect", "manifest", "seen", V1)["totals"]["keys"] == ROWS
    assert f"seen {V1}, build " in cluster.redkv("inspect", "manifest", "seen", V1).stdout
    file = manifest_of(cluster, "seen", V1).files[0]
    found = told(cluster, "inspect", "sst", file.object_key, "--first", "2")
    assert (found["entries"], found["smallest"]["internal_key"], found["largest"]["internal_key"]) == (
        file.entries,
        file.smallest.hex(),
        file.largest.hex(),
    )
    assert [one["type"] for one in found["first"]] == ["hash", "hash"]
    local = cluster.folder / "one.sst"
    local.write_bytes(cluster.store.get(file.object_key).data)
    assert f"{file.entries}, " in cluster.redkv("inspect", "sst", str(local)).stdout
    local.write_bytes(b"no SST file")
    broken = cluster.redkv("inspect", "sst", str(local))
    assert (broken.returncode, "error: IntegrityError:" in broken.stderr) == (1, True), broken.stderr
    key = told(cluster, "inspect", "key", file.smallest.hex())
    assert key == found["smallest"]
    assert cluster.redkv("inspect", "key", "xyz").returncode == 2


def test_status_is_shown_again_and_again_until_it_is_interrupted(cluster: Cluster) -> None:
    loaded(cluster, "watched", V1)
    for node in cluster.nodes:
        node.until("watched", V1, State.ACTIVE)
    command = [sys.executable, "-m", "pipeline.cli", "--config", str(cluster.settings_file), "status", "watched", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as running:
        assert running.stdout is not None
        looks = [json.loads(running.stdout.readline()) for _ in range(2)]
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 130
    assert [sorted(one["nodes"]) for one in looks] == [["a", "b"]] * 2
