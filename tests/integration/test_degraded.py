"""Loads onto a cluster of which nodes are away: two owners of slots and a replica of the first, by kill -9 of shard and sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.format.errors import SlotsWithoutOwnerError, StalledError
from pipeline.load.coordinator import Coordinator
from pipeline.load.coverage import Require
from pipeline.load.states import State
from pipeline.load.waiting import Patience
from pipeline.spec import DatasetSpec
from tests.support.builds import hash_spec
from tests.support.clusters import ROWS, Cluster, running_cluster
from tests.support.listener import OthersClock, Recorder
from tests.support.resp import RawClient
from tests.support.s3 import S3

V1, V2 = "2026-11-21", "2026-11-22"
OWNER, OTHER_OWNER, REPLICA = range(3)
QUICK = Patience(away_s_max=0.5)
IMPATIENT = Patience(stall_s_max=0.5)


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("away"), count=2, replicas=1) as one:
        yield one


@contextmanager
def away(cluster: Cluster, index: int) -> Iterator[None]:
    cluster.take_down(index)
    try:
        yield
    finally:
        cluster.bring_up(index)


def held(cluster: Cluster, spec: DatasetSpec, index: int) -> set[str]:
    """The versions that a shard answers with, over all keys of its slots; it may be a replica."""
    with RawClient(cluster.shards[index].port) as client:
        assert client.call("READONLY") == b"+OK\r\n"
        replies = [client.call("HGET", f"{spec.prefix}{number}", "name") for number in range(ROWS)]
    return {reply.split()[1].decode() for reply in replies if not reply.startswith(b"-MOVED")}


def test_a_load_goes_on_without_a_replica_if_any_owner_suffices_and_the_replica_follows(cluster: Cluster) -> None:
    spec = hash_spec("copy", "copy:${id}")
    cluster.load(spec, V1)
    cluster.build(spec, V2)
    with away(cluster, REPLICA):
        clock = OthersClock("ab", State.STAGED)
        coordinator = Coordinator(cluster.settings, clock, IMPATIENT, clock.seconds)
        with pytest.raises(StalledError, match=r"step stage of copy .* \(c, no progress for"):
            coordinator.load(cluster.spec_file(spec), V2, cluster.folder / "build.log")
        done = cluster.redkv("load", str(cluster.spec_file(spec)), "--version", V2, "--require", "any")
        assert done.returncode == 0, done.stderr
        assert "stage: goes on without c (the sidecar of c at http" in done.stderr
        assert done.stderr.count("goes on without") == 1
        assert "between the first and the last shard's swap" in done.stdout
        assert cluster.served(spec) == {V2}
    cluster.nodes[REPLICA].until("copy", V2, State.ACTIVE)
    assert held(cluster, spec, REPLICA) == held(cluster, spec, OWNER) == {V2}


def test_a_replica_stands_for_its_primary_and_the_primary_follows(cluster: Cluster) -> None:
    spec = hash_spec("first", "first:${id}")
    cluster.load(spec, V1)
    cluster.build(spec, V2)
    with away(cluster, OWNER):
        report = cluster.load(spec, V2, recorder := Recorder(), QUICK, require=Require.ANY)
        assert (report.keys, report.samples_checked > 0) == (ROWS, True)
        assert [note.partition(" (")[0] for note in recorder.notes if "goes on" in note] == ["stage: goes on without a"]
        assert held(cluster, spec, REPLICA) == held(cluster, spec, OTHER_OWNER) == {V2}
    cluster.nodes[OWNER].until("first", V2, State.ACTIVE)
    assert cluster.served(spec) == {V2}


def test_a_slot_without_an_owner_is_refused_before_anything_is_changed(cluster: Cluster) -> None:
    spec = hash_spec("none", "none:${id}")
    cluster.load(spec, V1)
    cluster.build(spec, V2)
    before = cluster.desired()
    with away(cluster, OTHER_OWNER):
        with pytest.raises(SlotsWithoutOwnerError, match=rf"the slots of {cluster.shards[OTHER_OWNER].name} have .* \(b can't be asked\)"):
            cluster.load(spec, V2, Recorder(), QUICK, require=Require.ANY)
        assert cluster.desired() == before
    assert cluster.load(spec, V2, require=Require.ANY).changed
    assert cluster.served(spec) == {V2}


def test_a_node_that_goes_away_in_the_middle_is_not_waited_for(cluster: Cluster) -> None:
    spec = hash_spec("middle", "middle:${id}")
    cluster.load(spec, V1)
    cluster.build(spec, V2)
    recorder = Recorder(on_step={"activate": lambda: cluster.take_down(REPLICA)})
    assert cluster.load(spec, V2, recorder, QUICK, require=Require.ANY).changed
    assert cluster.served(spec) == {V2}
    cluster.bring_up(REPLICA)
    cluster.nodes[REPLICA].until("middle", V2, State.ACTIVE)
    assert held(cluster, spec, REPLICA) == {V2}
