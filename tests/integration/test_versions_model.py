"""Random sequences of what happens to a dataset on a cluster, against a plain model of what its clients must read.

Real shards and sidecars on a real S3: two nodes that own slots, and a replica of the first. Loads, deltas, rollbacks, activations,
cancellations, garbage collection, nodes that go down (kill -9) and come back, slots that move. After each of them, every key that a living
shard holds reads as the model says. Hypothesis prints the steps that failed; what they do again is the same, but for the moments at which
it happens.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from pipeline.cli import garbage
from pipeline.format.errors import NoWayBackError, SlotsWithoutOwnerError
from pipeline.format.layout import topology_key
from pipeline.format.manifest import BASES_MAX
from pipeline.format.records import version_order
from pipeline.format.slots import SLOT_COUNT, SlotRange, key_slot
from pipeline.format.topology import Topology
from pipeline.load.control import cancel
from pipeline.load.coverage import Require, uncovered
from pipeline.load.nodes import Nodes
from pipeline.load.progress import LoadReport, Step
from pipeline.load.states import State
from pipeline.load.swap import Swapper
from pipeline.load.waiting import Patience
from pipeline.spec import DatasetSpec
from tests.support.builds import build, hash_spec
from tests.support.clusters import Cluster, running_cluster
from tests.support.listener import Recorder
from tests.support.resp import RawClient
from tests.support.s3 import S3

KEYS = 40
OWNERS, REPLICA = (0, 1), 2
KEPT = 2  # versions on the nodes beside the active one
PATIENCE = Patience(stall_s_max=120, away_s_max=0.3, withdraw_s_max=60)
SETTINGS = f"[retention.nodes]\nversions = {KEPT}\n[retention.store]\nversions = 1\ndelay_hours = 0"

Rows = dict[int, str]
names = (f"model-{number}" for number in count())
rows_of_a_version = st.sets(st.integers(0, KEYS - 1), min_size=KEYS // 2)
changed_by_a_delta = st.sets(st.integers(0, KEYS - 1), min_size=1, max_size=KEYS // 8)
removed_by_a_delta = st.sets(st.integers(0, KEYS - 1), max_size=KEYS // 8)


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(server, tmp_path_factory.mktemp("model"), count=len(OWNERS), replicas=1) as one:
        one.more_settings = SETTINGS
        yield one


class StoppedError(Exception):
    """Ends a load on its way."""


def stop() -> None:
    raise StoppedError


@dataclass
class Model:
    """What clients must read, and where a rollback goes."""

    rows: dict[str, Rows] = field(default_factory=dict)
    read: str | None = None
    retired: list[str] = field(default_factory=list)  # those that were left last at the end
    bad: set[str] = field(default_factory=set)

    def load(self, version: str) -> None:
        if self.read is not None:
            self.retired.append(self.read)
        self.read = version
        self.retain()

    def retain(self) -> None:
        """What retention leaves on the nodes."""
        good = [one for one in self.retired if one not in self.bad]
        self.retired = good[-KEPT:]

    def swap(self, version: str) -> None:
        assert self.read is not None
        self.retired.remove(version)
        self.retired.append(self.read)
        self.read = version

    @property
    def previous(self) -> str | None:
        assert self.read is not None
        older = [one for one in self.retired if version_order(one) < version_order(self.read) and one not in self.bad]
        return max(older, key=version_order, default=None)

    def value(self, number: int) -> str | None:
        return self.rows[self.read].get(number) if self.read is not None else None


class Versions(RuleBasedStateMachine):
    """One dataset, from nothing; the cluster is as it was found at the end."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.model = Model()
        self.down: set[int] = set()
        self.builds = count(1)
        self.spec: DatasetSpec = hash_spec(one := next(names), f"{one}:${{id}}")
        changes = {"table": "features.changes", "delete_if": "gone"}
        self.by_changes = hash_spec(one, f"{one}:${{id}}", changes=changes)
        self.specs: dict[str, DatasetSpec] = {}  # of which each version is built

    # --- what versions are made of; a way that a version can be built is a rule of its own ---

    @initialize(numbers=rows_of_a_version)
    def load_the_first(self, numbers: set[int]) -> None:
        self.bring(self.built(numbers))

    @rule(numbers=rows_of_a_version)
    def load(self, numbers: set[int]) -> None:
        self.bring(self.built(numbers))

    @precondition(lambda self: self.bases)
    @rule(data=st.data(), changed=changed_by_a_delta, removed=removed_by_a_delta, by_changes=st.booleans())
    def load_a_delta(self, data: st.DataObject, changed: set[int], removed: set[int], by_changes: bool) -> None:
        base = data.draw(st.sampled_from(self.bases))
        self.bring(self.built(changed, base, removed, self.by_changes if by_changes else self.spec), base)

    @property
    def bases(self) -> list[str]:
        """What a delta may lie on: nodes hold it, the store knows it, and it lies on few versions itself."""
        there = {self.model.read, *self.model.retired} - self.model.bad
        stored = {one: self.cluster.documents.manifest(self.spec.dataset, one) for one in self.model.rows if one in there}
        return [one for one, found in stored.items() if found is not None and len(found[0].bases) < BASES_MAX]

    def built(self, numbers: set[int], base: str | None = None, removed: Iterable[int] = (), spec: DatasetSpec | None = None) -> str:
        """Another version, built: other values for these keys; others are not there, or as the base has them, if not removed."""
        version = f"2026-01-01.{next(self.builds)}"
        kept = {number: text for number, text in self.model.rows[base].items() if number not in removed} if base else {}
        rows = self.model.rows[version] = kept | {number: f"{number} of {version}" for number in sorted(numbers)}
        spec = self.specs[version] = spec or self.spec
        told = {number: rows.get(number, "") for number in {*numbers, *removed}} if spec.changes else rows
        table: dict[str, list[str] | list[bool]] = {"id": [str(one) for one in told], "name": list(told.values())}
        if spec.changes:
            table["gone"] = [number not in rows for number in told]
        build(self.cluster.store, spec, version, table, base=base)
        return version

    def bring(self, version: str, base: str | None = None) -> None:
        before = self.cluster.desired()
        if not self.covered:
            with pytest.raises(SlotsWithoutOwnerError):
                self.run(version, base=base)
            assert self.cluster.desired() == before
            return
        report = self.run(version, base=base)
        assert (report.changed, report.base) == (True, base)
        self.model.load(version)
        self.await_all()

    def run(self, version: str, recorder: Recorder | None = None, base: str | None = None) -> LoadReport:
        require = Require.ANY if self.down else Require.ALL
        return self.cluster.load(self.specs[version], version, recorder, PATIENCE, require=require, allow_shrink=True, base=base)

    # --- versions that are there ---

    @precondition(lambda self: self.covered)
    @rule(mark_bad=st.booleans())
    def rollback(self, mark_bad: bool) -> None:
        target, left = self.model.previous, self.model.read
        if target is None:
            with pytest.raises(NoWayBackError):
                self.swapper.rollback(self.spec.dataset, mark_bad=mark_bad)
            return
        report = self.swapper.rollback(self.spec.dataset, mark_bad=mark_bad)
        assert (report.version, report.left, report.marked_bad) == (target, left, mark_bad)
        self.model.swap(target)
        self.await_all()
        if mark_bad and left is not None:
            self.model.bad.add(left)

    @precondition(lambda self: self.covered and set(self.model.retired) - self.model.bad)
    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(set(self.model.retired) - self.model.bad)))
        assert self.swapper.activate(self.spec.dataset, version).changed
        self.model.swap(version)
        self.await_all()

    @precondition(lambda self: self.covered)
    @rule(numbers=rows_of_a_version, step=st.sampled_from([Step.INGEST, Step.VERIFY, Step.ACTIVATE]))
    def cancel(self, numbers: set[int], step: Step) -> None:
        """A load that ended on its way, wherever it stands."""
        version = self.built(numbers)
        with pytest.raises(StoppedError):
            self.run(version, Recorder(on_step={step: stop}))
        with Nodes(self.cluster.documents.topology()) as nodes:
            assert cancel(self.cluster.documents, nodes, self.spec.dataset, version) == []
        assert version not in self.cluster.goals(self.spec)

    @rule()
    def collect_garbage(self) -> None:
        settings, documents = self.cluster.settings, self.cluster.documents
        garbage.remove(settings, documents, garbage.find(settings, documents, 0.0))
        self.model.retain()

    # --- the cluster ---

    @precondition(lambda self: len(self.down) < len(self.cluster.nodes) - 1)
    @rule(data=st.data())
    def node_down(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.up)))
        self.cluster.take_down(index)
        self.down.add(index)

    @precondition(lambda self: self.down)
    @rule(data=st.data())
    def node_up(self, data: st.DataObject) -> None:
        self.raise_node(data.draw(st.sampled_from(sorted(self.down))))

    @rule(border=st.integers(1000, 15_000))
    def move_slots(self, border: int) -> None:
        self.give((SlotRange(first=0, last=border - 1), SlotRange(first=border, last=SLOT_COUNT - 1)))

    def give(self, owned: tuple[SlotRange, SlotRange]) -> None:
        """The owners' slots from now on; returns when all nodes that are up have what they need."""
        store, key = self.cluster.store, topology_key("test")
        blob = store.get(key)
        epoch = Topology.from_json(blob.data, key).epoch + 1
        store.replace(key, self.cluster.topology_of([(owned[0],), (owned[1],), ()], epoch).to_json(), blob.etag)
        for index in self.up:
            self.follow(index)

    def raise_node(self, index: int) -> None:
        self.cluster.bring_up(index)
        self.down.remove(index)
        self.follow(index)

    def await_all(self) -> None:
        """Where a load or a swap need not wait for all nodes, it goes on without one that thinks for too long."""
        for index in self.up:
            self.follow(index)

    def follow(self, index: int) -> None:
        """Wait until a node is where it shall be."""
        node, topology, desired = self.cluster.nodes[index], self.cluster.documents.topology(), self.cluster.desired()
        node.wake()
        node.until_true("the documents", lambda one: (one.topology_epoch, one.desired_epoch) == (topology.epoch, desired.epoch))
        if self.model.read is not None:
            node.until(self.spec.dataset, self.model.read, State.ACTIVE)

    @property
    def up(self) -> set[int]:
        return set(range(len(self.cluster.nodes))) - self.down

    @property
    def covered(self) -> bool:
        names = [self.cluster.nodes[index].name for index in self.up]
        return not uncovered(self.cluster.documents.topology(), names)

    @property
    def swapper(self) -> Swapper:
        return Swapper(self.cluster.settings, Recorder(), PATIENCE)

    # --- what clients read ---

    @invariant()
    def clients_read_what_the_model_says(self) -> None:
        topology = self.cluster.documents.topology()
        for index in self.up:
            shard = self.cluster.shards[index]
            held = topology.held_by(shard.name)
            mine = [number for number in range(KEYS) if any(key_slot(self.key(number)) in one for one in held)]
            with RawClient(shard.port) as client:
                assert client.call("READONLY") == b"+OK\r\n"
                found = {number: client.call("HGET", self.key(number), "name") for number in mine}
            assert found == {number: _bulk(self.model.value(number)) for number in mine}, f"node {index}"

    def key(self, number: int) -> bytes:
        return f"{self.spec.prefix}{number}".encode()

    def teardown(self) -> None:
        failed = sys.exception()
        if isinstance(failed, Exception):  # Hypothesis tells it only if it happens again, and these are processes
            traceback.print_exception(failed)
        for index in sorted(self.down):
            self.raise_node(index)
        self.clients_read_what_the_model_says()


def _bulk(text: str | None) -> bytes:
    return b"$-1\r\n" if text is None else b"$%d\r\n%b\r\n" % (len(text), text.encode())


def check(cluster: Cluster, examples: int, steps: int) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate],  # a shorter failure would cost minutes of starting processes
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )
    run_state_machine_as_test(lambda: Versions(cluster), settings=how)  # type: ignore[arg-type]  # any callable will do


def test_clients_read_what_a_plain_model_says(cluster: Cluster) -> None:
    check(cluster, examples=2, steps=10)


@pytest.mark.full
def test_clients_read_what_a_plain_model_says_for_long(cluster: Cluster) -> None:
    check(cluster, examples=10, steps=20)
