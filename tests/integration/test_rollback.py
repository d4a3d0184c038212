"""Rollback, activation and marks on two real nodes, under readers, and through the death of whoever ordered it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.errors import BadVersionError, NoWayBackError, UsageError
from pipeline.load.control import cancel
from pipeline.load.documents import with_retained
from pipeline.load.nodes import Nodes
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.load.steps import coordinator_point
from pipeline.settings import Keep
from pipeline.spec import DatasetSpec
from tests.support.builds import hash_spec
from tests.support.clusters import Cluster, running_cluster
from tests.support.crash import Trap
from tests.support.listener import Recorder
from tests.support.readers import READ_KEYS, READERS, SteadyReaders
from tests.support.s3 import S3

V1, V2, V3 = "2026-11-21", "2026-11-22", "2026-11-23"


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("back")) as one:
        yield one


def loaded(cluster: Cluster, name: str, *versions: str) -> DatasetSpec:
    spec = hash_spec(name, f"{name}:${{id}}")
    for version in versions:
        cluster.load(spec, version)
    return spec


def test_readers_see_every_hash_go_back_once_whole_and_never_absent(cluster: Cluster) -> None:
    spec = loaded(cluster, "seen", V1)
    cluster.build(spec, V2)
    with SteadyReaders(cluster, spec) as readers:
        cluster.load(spec, V2)
        readers.await_turn()
        report = cluster.swapper().rollback("seen")
        readers.await_turn()
    assert (report.version, report.left, report.changed, report.marked_bad) == (V1, V2, True, False)
    assert report.swap_window_s is not None
    assert report.swap_window_s >= 0
    assert cluster.served(spec) == {V1}
    assert len(readers.seen) == READERS * READ_KEYS
    assert {who: changes for who, changes in readers.seen.items() if changes != [V1, V2, V1]} == {}


def test_a_rollback_goes_to_the_version_before_by_the_command_line_and_says_so(cluster: Cluster) -> None:
    spec = loaded(cluster, "plain", V1, V2)
    done = cluster.redkv("--as", "ann", "rollback", "plain", "--output", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["version"], told["left"], told["changed"]) == (V1, V2, True)
    assert told["swap_window_s"] >= 0
    assert cluster.goals(spec) == {V1: "active", V2: "retired"}
    assert cluster.served(spec) == {V1}
    last = cluster.history(spec)[-1]
    assert (last.action, last.version, last.before, last.by, last.epoch) == ("rollback", V1, V2, "ann", cluster.desired().epoch)
    assert "no good version before it" in cluster.redkv("rollback", "plain").stderr


def test_a_version_that_was_marked_bad_never_comes_back(cluster: Cluster) -> None:
    spec = loaded(cluster, "bad", V1, V2)
    assert cluster.swapper().rollback("bad", mark_bad=True).marked_bad
    mark = cluster.dataset(spec).mark_of(V2)
    assert mark is not None
    with pytest.raises(BadVersionError, match=f"bad {V2} was marked bad by {mark.by}: build it again under a new id"):
        cluster.load(spec, V2)
    with pytest.raises(BadVersionError):
        cluster.swapper().activate("bad", V2)
    with pytest.raises(BadVersionError):
        cluster.swapper().rollback("bad", V2)
    refused = cluster.redkv("activate", "bad", V2)
    assert (refused.returncode, "error: BadVersionError:" in refused.stderr) == (1, True), refused.stderr
    assert cluster.served(spec) == {V1}
    cluster.load(spec, V3)
    assert cluster.dataset(spec).mark_of(V2) == mark  # though the version itself may be gone
    assert cluster.swapper().rollback("bad").version == V1
    assert [one for one in cluster.deeds(spec) if one[0] == "mark-bad"] == [("mark-bad", V2)]


def test_a_version_can_be_marked_after_it_was_left(cluster: Cluster) -> None:
    loaded(cluster, "after", V1, V2)
    with pytest.raises(NoWayBackError, match="clients read after 2026-11-22"):
        cluster.swapper().mark_bad("after", V2)
    cluster.swapper().rollback("after")
    assert cluster.swapper().mark_bad("after", V2)
    assert not cluster.swapper().mark_bad("after", V2)
    with pytest.raises(BadVersionError):
        cluster.swapper().activate("after", V2)


def test_an_activation_goes_forward_again(cluster: Cluster) -> None:
    spec = loaded(cluster, "forth", V1, V2)
    cluster.swapper().rollback("forth")
    report = cluster.swapper().activate("forth", V2)
    assert (report.version, report.left) == (V2, V1)
    assert cluster.served(spec) == {V2}
    assert not cluster.swapper().activate("forth", V2).changed
    assert cluster.deeds(spec) == [("load", V1), ("activate", V1), ("load", V2), ("activate", V2), ("rollback", V1), ("activate", V2)]


def test_what_can_not_be_gone_back_to_is_refused_by_name_and_nothing_changes(cluster: Cluster) -> None:
    spec = loaded(cluster, "refused", V1)
    before = cluster.desired()
    with pytest.raises(UsageError, match="has no dataset 'nobody': it has "):
        cluster.swapper().rollback("nobody")
    with pytest.raises(NoWayBackError, match=f"refused reads {V1}, and nodes hold no good version before it"):
        cluster.swapper().rollback("refused")
    with pytest.raises(UsageError, match=f"there is no refused {V2}, neither on the nodes nor in the store"):
        cluster.swapper().activate("refused", V2)
    assert cluster.desired() == before
    assert cluster.served(spec) == {V1}


def test_an_upsert_has_no_way_back(cluster: Cluster) -> None:
    spec = hash_spec("entered", "entered:${id}", mode="upsert")
    for version in (V1, V2):
        cluster.load(spec, version)
    with pytest.raises(NoWayBackError, match="entered is loaded in mode upsert"):
        cluster.swapper().rollback("entered")
    with pytest.raises(NoWayBackError, match="entered is loaded in mode upsert"):
        cluster.swapper().activate("entered", V1)
    assert cluster.served(spec) == {V2}


def test_a_version_that_only_the_store_has_is_brought_and_verified_first(cluster: Cluster) -> None:
    spec = loaded(cluster, "stored", V1, V2, V3)
    assert cluster.goals(spec) == {V2: "retired", V3: "active"}
    recorder = Recorder()
    assert cluster.swapper(recorder).rollback("stored", V1).version == V1
    assert [one.partition(":")[0] for one in recorder.steps] == ["plan", "stage", "ingest", "verify", "activate"]
    assert cluster.served(spec) == {V1}


def test_a_version_that_was_given_up_is_brought_anew_though_nodes_still_hold_it(cluster: Cluster) -> None:
    spec = loaded(cluster, "given-up", V1, V2)
    cluster.documents.change(with_retained("given-up", Keep(versions=0), cluster.documents.now_ms()))  # and nobody tells the nodes
    assert cluster.goals(spec) == {V2: "active"}
    assert cluster.swapper().rollback("given-up", V1).version == V1
    assert cluster.served(spec) == {V1}


def test_a_node_that_lost_its_directory_gets_it_before_anybody_swaps(cluster: Cluster) -> None:
    spec = loaded(cluster, "lost", V1, V2)
    node, shard = cluster.nodes[1], cluster.shards[1]
    node.kill()
    path = shard.paths.version("lost", V1)
    for child in path.iterdir():
        child.unlink()
    path.rmdir()
    node.start()
    node.until("lost", V2, State.ACTIVE)
    recorder = Recorder()
    assert cluster.swapper(recorder).rollback("lost").changed
    assert any(one.startswith("stage:") for one in recorder.steps)
    assert cluster.served(spec) == {V1}


class StoppedError(Exception):
    """Ends a rollback on its way."""


def stop() -> None:
    raise StoppedError


def test_a_rollback_out_of_the_store_that_was_interrupted_is_cancelled_or_goes_on(cluster: Cluster) -> None:
    spec = loaded(cluster, name := "halfway", V1, V2, V3)
    with pytest.raises(StoppedError):
        cluster.swapper(Recorder(on_step={Step.INGEST: stop})).rollback(name, V1)
    with Nodes(cluster.documents.topology()) as nodes:
        assert cancel(cluster.documents, nodes, name, V1) == []
    assert cluster.goals(spec) == {V1: "retired", V2: "retired", V3: "active"}
    assert cluster.deeds(spec)[-2:] == [("load", V1), ("cancel", V1)]

    with pytest.raises(StoppedError):
        cluster.swapper(Recorder(on_step={Step.VERIFY: stop})).rollback(name, V1)
    assert cluster.swapper(recorder := Recorder()).rollback(name, V1).version == V1
    assert [one.partition(":")[0] for one in recorder.steps] == ["plan", "stage", "ingest", "verify", "activate"]
    assert cluster.served(spec) == {V1}
    assert cluster.goals(spec) == {V1: "active", V2: "retired", V3: "retired"}


def test_history_is_whole_though_the_coordinator_died_right_after_the_change(cluster: Cluster, tmp_path: Path) -> None:
    spec = loaded(cluster, "died", "2026-11-19", V1, V2)
    trap = Trap(coordinator_point(Step.ACTIVATE, "written"), tmp_path)
    killed = cluster.redkv("rollback", "died", "--mark-bad", environment=trap.environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = [("rollback", V1), ("mark-bad", V2)]
    assert cluster.deeds(spec)[-2:] == told
    assert cluster.swapper().rollback("died", V1).version == V1  # whether the nodes are there yet or not
    assert cluster.deeds(spec)[-2:] == told
    cluster.load(spec, V3)  # the next writer stores what only the document said
    assert [one for one in cluster.deeds(spec) if one in told] == told
    assert len({one.id for one in cluster.history(spec)}) == len(cluster.history(spec))
