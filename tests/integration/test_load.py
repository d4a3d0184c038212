"""Whole loads on a real local stack: three nodes, six shards, SeaweedFS. Versions are built without Spark here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
import yaml
from redis.cluster import ClusterNode, RedisCluster

from pipeline.format.errors import ChecksumMismatchError
from pipeline.format.manifest import Manifest
from pipeline.load.coordinator import Coordinator
from pipeline.load.waiting import Patience
from pipeline.spec import DatasetSpec
from pipeline.stack.local import Stack
from pipeline.store import ObjectStore
from tests.support.builds import build, hash_spec
from tests.support.listener import Recorder

ROWS = 3000
WAIT_S = 60.0  # for what takes a second on an idle machine


@dataclass
class Cluster:
    """A running stack, and what a test does with it."""

    stack: Stack
    folder: Path

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.stack.settings.store)

    def spec_file(self, spec: DatasetSpec) -> Path:
        path = self.folder / f"{spec.dataset}.yaml"
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        return path

    def build(self, spec: DatasetSpec, version: str, mark: str = "", rows: int = ROWS) -> Manifest:
        ids = [str(number) for number in range(rows)]
        return build(self.store, spec, version, {"id": ids, "name": [f"{mark}name {one}" for one in ids], "age": list(range(rows))})

    def load(self, spec: DatasetSpec, version: str, listener: Recorder | None = None) -> Any:
        coordinator = Coordinator(self.stack.settings, listener or Recorder(), Patience(stall_s_max=60))
        return coordinator.load(self.spec_file(spec), version, self.folder / "build.log")

    def client(self) -> RedisCluster:
        first = self.stack.topology.shards[0]
        seeds = [ClusterNode(first.host, first.port)]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=seeds, decode_responses=True)

    def redkv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "REDKV_CONFIG": str(self.stack.settings_path)}
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    stack = Stack(folder / "stack")
    stack.start()
    before = dict(os.environ)
    try:
        yield Cluster(stack, folder)
    finally:
        stack.remove()
        os.environ.clear()
        os.environ.update(before)


def check_rows(client: RedisCluster, prefix: str, mark: str = "") -> None:
    pipeline = client.pipeline()  # type: ignore[no-untyped-call]
    for number in range(ROWS):
        pipeline.hgetall(f"{prefix}{number}")
    found = pipeline.execute()
    assert found == [{"name": f"{mark}name {number}", "age": str(number)} for number in range(ROWS)]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.sst"))


def test_every_row_is_read_by_a_cluster_client_and_a_second_version_replaces_all_of_them(cluster: Cluster) -> None:
    spec = hash_spec("person", "person:${id}")
    cluster.build(spec, "2026-11-21")
    report = cluster.load(spec, "2026-11-21")
    assert (report.changed, report.keys, report.source_rows) == (True, ROWS, ROWS)
    with cluster.client() as client:
        check_rows(client, "person:")
        cluster.build(spec, "2026-11-22", mark="new ")
        assert cluster.load(spec, "2026-11-22").changed
        check_rows(client, "person:", mark="new ")
        assert client.exists(f"person:{ROWS}") == 0


def test_the_same_version_again_changes_nothing_and_says_so(cluster: Cluster) -> None:
    spec = hash_spec("again", "again:${id}")
    cluster.build(spec, "2026-11-22")
    cluster.load(spec, "2026-11-22")
    before = Coordinator(cluster.stack.settings, Recorder()).documents.desired()
    listener = Recorder()
    assert not cluster.load(spec, "2026-11-22", listener).changed
    assert "active already: nothing to do" in listener.notes[-1]
    assert Coordinator(cluster.stack.settings, Recorder()).documents.desired() == before
    again = cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-22")
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True), again


def test_a_version_that_shrank_or_is_empty_needs_a_word(cluster: Cluster) -> None:
    spec = hash_spec("small", "small:${id}", allow_empty=True)
    cluster.build(spec, "2026-11-21", rows=10)
    cluster.load(spec, "2026-11-21")
    cluster.build(spec, "2026-11-22", rows=4)
    refused = cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-22")
    assert (refused.returncode, "holds 4 rows, the active version 2026-11-21 holds 10" in refused.stderr) == (1, True), refused
    with cluster.client() as client:
        assert client.exists("small:9") == 1
        accepted = cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-22", "--allow-shrink")
        assert (accepted.returncode, client.exists("small:9"), client.exists("small:3")) == (0, 0, 1), accepted
        build(cluster.store, spec, "2026-11-23", {"id": [], "name": []})
        cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-23", "--allow-shrink")
        assert client.exists("small:3") == 0


def test_one_flipped_byte_is_found_named_and_not_ingested_and_the_active_version_serves_on(cluster: Cluster) -> None:
    spec = hash_spec("flipped", "flipped:${id}")
    cluster.build(spec, "2026-11-21")
    cluster.load(spec, "2026-11-21")
    manifest = cluster.build(spec, "2026-11-22", mark="bad ")
    victim = manifest.files[1].object_key
    raw = bytearray(cluster.store.get(victim).data)
    raw[len(raw) // 2] ^= 0x01
    cluster.store.delete(victim)
    cluster.store.create(victim, bytes(raw))
    with pytest.raises(ChecksumMismatchError, match=victim) as failed:
        cluster.load(spec, "2026-11-22")
    assert failed.value.fields["object"] == victim
    assert failed.value.fields["node"].startswith("node-")
    with cluster.client() as client:
        check_rows(client, "flipped:")
    assert not [name for name in files_below(cluster.stack.folder / "nodes") if "flipped/2026-11-22" in name]


@pytest.mark.parametrize("when", ["stage", "ingest"])
def test_a_sidecar_killed_in_mid_load_comes_back_and_ends_in_the_same_data(cluster: Cluster, when: str) -> None:
    spec = hash_spec(f"killed-{when}", f"killed-{when}:${{id}}")
    cluster.build(spec, "2026-11-22")
    killed = Recorder(
        on_step={when: lambda: cluster.stack.kill("node-2-sidecar")}, on_nodes=lambda: cluster.stack.restart("node-2-sidecar")
    )
    assert cluster.load(spec, "2026-11-22", killed).keys == ROWS
    with cluster.client() as client:
        check_rows(client, f"killed-{when}:")


def test_a_shard_killed_comes_back_with_the_active_version(cluster: Cluster) -> None:
    spec = hash_spec("shard", "shard:${id}")
    cluster.build(spec, "2026-11-22")
    cluster.load(spec, "2026-11-22")
    cluster.stack.kill("node-1-a")
    cluster.stack.restart("node-1-a")
    with cluster.client() as client:
        check_rows(client, "shard:")


def test_bad_input_ends_with_one_clear_message_and_exit_code_2_before_spark_starts(cluster: Cluster) -> None:
    person = hash_spec("person", "person:${id}")
    taken = hash_spec("taken", "taken:${id}")
    cluster.build(taken, "2026-11-21", rows=10)
    cluster.load(taken, "2026-11-21")
    cases = {
        "overlap": (hash_spec("other", "taken:x${id}").model_dump(mode="json", exclude_none=True), "overlaps 'taken:' of dataset taken"),
        "template": ({**person.model_dump(mode="json", exclude_none=True), "key": "person:${id"}, "without closing it: write ${column}"),
        "field": ({**person.model_dump(mode="json", exclude_none=True), "tipe": "hash"}, "field tipe is unknown"),
    }
    for name, (document, message) in cases.items():
        path = cluster.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        done = cluster.redkv("load", str(path), "--version", "2027-01-01")
        assert (done.returncode, message in done.stderr) == (2, True), done
        assert "Traceback" not in done.stderr
        assert "build:" not in done.stderr
    version = cluster.redkv("load", str(cluster.spec_file(person)), "--version", "yesterday")
    assert (version.returncode, "is no version id: write a date" in version.stderr) == (2, True), version


def states_told(cluster: Cluster, dataset: str) -> dict[str, list[str]]:
    """The states of a dataset's versions by node, as `redkv status` says."""
    told = json.loads(cluster.redkv("status", dataset, "--output", "json").stdout)
    return {node: [one["state"] for one in status["datasets"][dataset]] for node, status in told["nodes"].items()}


def test_status_tells_people_and_programs(cluster: Cluster) -> None:
    spec = hash_spec("told", "told:${id}")
    for version in ("2026-11-21", "2026-11-22"):
        cluster.build(spec, version, rows=10)
        cluster.load(spec, version)
    text = cluster.redkv("status")
    assert (text.returncode, "told" in text.stdout) == (0, True), text
    expected = {node: ["retired", "active"] for node in ("node-1", "node-2", "node-3")}
    deadline = monotonic() + WAIT_S
    while (states := states_told(cluster, "told")) != expected:  # nodes retire the version before by themselves
        assert monotonic() < deadline, states
    unknown = cluster.redkv("status", "nobody")
    assert (unknown.returncode, "has no dataset 'nobody'" in unknown.stderr) == (2, True)


def test_key_prints_the_key_its_slot_and_its_owner(cluster: Cluster) -> None:
    path = cluster.spec_file(hash_spec("person", "person:${id}"))
    told = json.loads(cluster.redkv("key", str(path), "id=42", "--output", "json").stdout)
    with cluster.client() as client:
        assert told["slot"] == client.keyslot("person:42")
        assert client.get_node_from_key("person:42").port == told["owner"]["port"]
    assert told["key"] == "person:42"


def test_no_port_of_the_stack_listens_beyond_loopback(cluster: Cluster) -> None:
    listening = []
    for running in cluster.stack.members.values():
        process = psutil.Process(running.pid)
        for one in [process, *process.children(recursive=True)]:
            listening += [(one.name(), socket.laddr.ip) for socket in one.net_connections("inet") if socket.status == psutil.CONN_LISTEN]
    assert len(listening) > len(cluster.stack.members)
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}, listening


def test_rows_enter_the_live_keys_beside_those_of_clients(cluster: Cluster) -> None:
    """Mode `upsert`: what a version does not name stands, what it marks goes, and there is no way back."""
    spec = hash_spec("basket", "basket:${id}", mode="upsert", delete_if="gone")
    ids = [str(number) for number in range(ROWS)]
    build(cluster.store, spec, "2026-11-21", {"id": ids, "name": ids, "gone": [number % 10 == 0 for number in range(ROWS)]})
    with cluster.client() as client:
        for key in ("basket:0", "basket:1", "basket:mine"):
            client.hset(key, "name", "mine")
        listener = Recorder()
        report = cluster.load(spec, "2026-11-21", listener)
        assert (report.keys, report.deletes, report.skipped, report.mode) == (ROWS - ROWS // 10, ROWS // 10, 0, "upsert")
        assert report.samples_checked > 0
        assert not any("read otherwise" in note for note in listener.notes), listener.notes
        assert [client.hgetall(key) for key in ("basket:0", "basket:1", "basket:mine")] == [{}, {"name": "1"}, {"name": "mine"}]
        assert sum(client.exists(f"basket:{one}") for one in ids) == ROWS - ROWS // 10
        client.hset("basket:2", "name", "mine")
        build(cluster.store, spec, "2026-11-22", {"id": ["3"], "name": ["three"], "gone": [False]})
        again = cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-22")
        assert again.returncode == 0, again
        assert "1 keys" in again.stdout
        assert "there is no way back" in again.stdout
        assert [client.hget(f"basket:{one}", "name") for one in (2, 3, 4)] == ["mine", "three", "4"]
    desired = Coordinator(cluster.stack.settings, Recorder()).documents.desired().datasets["basket"]
    assert [(one.version, str(one.goal)) for one in desired.versions] == [("2026-11-22", "active")]
    assert "nothing to do" in cluster.redkv("load", str(cluster.spec_file(spec)), "--version", "2026-11-22").stdout
    other = cluster.redkv("load", str(cluster.spec_file(spec.model_copy(update={"mode": "replace"}))), "--version", "2026-11-23")
    assert (other.returncode, "is loaded in mode upsert on this cluster" in other.stderr) == (2, True), other
