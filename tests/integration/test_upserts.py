"""Mode `upsert` from a manifest to live keys, on real shards, a real sidecar and a real S3: whose writes stand, and what dies when."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import pytest
from rocksdict import AccessType, Options, Rdict

from ingest_sidecar.progress import sidecar_point
from pipeline.format.crashpoints import IngestPoint, UpsertPoint
from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.errors import ReplicatedSlotsError
from pipeline.format.keys import Kind, element_head, meta_key, parse_key
from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges, key_slot, slot_set
from pipeline.format.topology import Node, Shard, Topology
from pipeline.format.values import ValueType, encode_big, encode_hash, encode_string
from pipeline.load.states import Event, State
from tests.support.crash import Trap
from tests.support.disk import lying_below
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, running_shards, topology_of
from tests.support.sidecars import WAIT_S, Head, NodeUnderTest
from tests.support.values import read_all, reading
from tests.support.versions import BuiltVersion, build_version

V1, V2 = "2026-11-22", "2026-11-23"
PREFIX = "person:"
HALF = SLOT_COUNT // 2
FILES = even_ranges(3)  # whose borders neither one nor two shards share: some file straddles

Rows = Mapping[bytes, bytes | None]


@dataclass
class Scene:
    """A node of some shards, and the clients that write there meanwhile."""

    s3: S3
    head: Head
    node: NodeUnderTest
    shards: list[ShardProcess]
    built: dict[str, BuiltVersion] = field(default_factory=dict)

    def build(
        self,
        version: str,
        rows: Rows,
        elements: Mapping[bytes, bytes] | None = None,
        kind: Literal["string", "hash", "zset"] = "string",
        wrong_samples: frozenset[bytes] = frozenset(),
    ) -> BuiltVersion:
        self.built[version] = build_version(
            self.s3.store,
            "person",
            version,
            rows,
            prefix=PREFIX,
            mode="upsert",
            partitions=FILES,
            elements=elements,
            kind=kind,
            wrong_samples=wrong_samples,
        )
        return self.built[version]

    def want(self, **goals: Goal) -> None:
        """The goals of v1 and v2."""
        wanted: list[DesiredVersion] = [self.built[{"v1": V1, "v2": V2}[name]].wanted(goal) for name, goal in goals.items()]
        self.head.want("upsert", person=(PREFIX, wanted))

    def reach(self, version: str, state: State) -> None:
        self.node.wake()
        self.node.until("person", version, state)

    def own(self, *slots: SlotRange, epoch: int) -> None:
        self.head.topology(topology_of(self.shards, [[one] for one in slots], epoch=epoch))

    def call(self, key: str | bytes, *words: bytes | str | int) -> bytes:
        """A client's command on a key, at its owner."""
        topology = Topology.from_json(self.shards[0].paths.topology.read_bytes(), "topology")
        owner = topology.owner_of(key_slot(key if isinstance(key, bytes) else key.encode()))
        assert owner is not None
        with RawClient(owner.port) as client:
            return client.call(words[0], key, *words[1:])

    def clean(self) -> bool:
        """No file of a version, staged, made or published, lies about."""
        made = lying_below(*(one.paths.making for one in self.shards))
        published = [path for path in lying_below(*(one.paths.versions for one in self.shards)) if path.suffix == ".sst"]
        return not self.node.staged_files() and not made and not published


def scene_of(tmp_path: Path, server: S3, count: int) -> Iterator[Scene]:
    s3 = server.fresh()
    with running_shards(tmp_path, count) as shards:
        node = NodeUnderTest(tmp_path, s3.url, s3.environment, shards)
        head = Head(s3.store)
        head.topology(topology_of(shards, [[one] for one in even_ranges(count)], epoch=2))
        try:
            yield Scene(s3, head, node, shards)
        finally:
            node.kill()


@pytest.fixture
def scene(tmp_path: Path, server: S3) -> Iterator[Scene]:
    """Two shards, and a sidecar that runs."""
    for one in scene_of(tmp_path, server, 2):
        one.node.start()
        yield one


@pytest.fixture
def single(tmp_path: Path, server: S3) -> Iterator[Scene]:
    """One shard, and a sidecar that is yet to be started."""
    yield from scene_of(tmp_path, server, 1)


def strings(mark: str, numbers: range = range(600)) -> dict[bytes, bytes | None]:
    return {b"person:%d" % number: encode_string(f"{mark}{number}".encode()) for number in numbers}


def in_live(shard: ShardProcess) -> dict[bytes, bytes]:
    """What the live database of a shard that does not run holds of user keys."""
    database = Rdict(str(shard.paths.live), options=Options(raw_mode=True), access_type=AccessType.read_only(False))
    try:
        entries: dict[bytes, bytes] = dict(iter(database.items()))  # type: ignore[arg-type]  # raw mode gives bytes
    finally:
        database.close()
    return {key: value for key, value in entries.items() if parse_key(key).kind is not Kind.LOCAL}


def test_rows_enter_the_live_keys_and_no_shard_holds_anothers(scene: Scene) -> None:
    rows = strings("v")
    gone = {b"person:%d" % number: None for number in range(600, 700)}
    for number in range(550, 750):
        scene.call(f"person:{number}", "SET", "mine")
    scene.build(V1, {**rows, **gone})
    for goal, state in ((Goal.STAGED, State.STAGED), (Goal.READY, State.READY)):
        scene.want(v1=goal)
        scene.reach(V1, state)
        assert scene.call("person:0", "GET") == b"$-1\r\n"
        assert scene.call("person:650", "GET") == b"$4\r\nmine\r\n"
    counts = scene.node.until("person", V1, State.READY).shards.values()
    assert [sum(getattr(one, name) for one in counts) for name in ("keys", "entries", "deletes")] == [600, 600, 100]
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.ACTIVE)
    found = scene.node.until("person", V1, State.ACTIVE)
    assert (found.samples_checked, found.samples_changed) == (len(scene.built[V1].manifest.samples), 0)
    assert read_all(scene.shards, {key: value for key, value in rows.items() if value}) == rows
    assert scene.call("person:650", "GET") == b"$-1\r\n"
    assert scene.call("person:749", "GET") == b"$4\r\nmine\r\n"
    assert scene.call("person:1", "SET", "newer") == b"+OK\r\n", "they are ordinary keys"
    scene.node.until_true("a clean disk", lambda _: scene.clean())
    for shard, slots in zip(scene.shards, even_ranges(2), strict=True):
        shard.kill()
        assert {parse_key(key).slot for key in in_live(shard)} <= slot_set([slots])


def test_what_clients_wrote_since_stands_until_a_version_names_the_key(scene: Scene) -> None:
    scene.build(V1, strings("old"))
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.ACTIVE)
    scene.call("person:1", "SET", "mine")
    scene.call("person:400", "SET", "mine")
    scene.call("person:401", "DEL")
    scene.node.kill()
    for shard in scene.shards:
        shard.kill()
        shard.start()
    scene.node.start()
    scene.reach(V1, State.ACTIVE)
    assert scene.call("person:1", "GET") == b"$4\r\nmine\r\n"
    scene.build(V2, strings("new", range(300)), wrong_samples=frozenset({b"person:400"}))
    scene.want(v1=Goal.ACTIVE, v2=Goal.READY)
    scene.reach(V2, State.READY)
    scene.want(v1=Goal.RETIRED, v2=Goal.ACTIVE)
    scene.reach(V2, State.ACTIVE)
    assert scene.node.until("person", V2, State.ACTIVE).samples_changed == 1, "a warning, no failure: clients may have written it"
    scene.node.until_true("the first one to be done with", lambda status: status.find("person", V1).state is not State.ACTIVE)  # type: ignore[union-attr]
    assert scene.call("person:1", "GET") == b"$4\r\nnew1\r\n"
    assert scene.call("person:400", "GET") == b"$4\r\nmine\r\n"
    assert scene.call("person:401", "GET") == b"$-1\r\n"
    assert scene.call("person:402", "GET") == b"$6\r\nold402\r\n"
    scene.want(v2=Goal.ACTIVE)
    scene.node.wake()
    scene.node.until_true("the first one to be gone", lambda status: status.find("person", V1) is None and scene.clean())


def test_a_key_that_a_client_gave_another_type_since_fails_no_load(single: Scene, tmp_path: Path) -> None:
    trap = Trap(UpsertPoint.UNIT_IN, tmp_path, "STOP")
    built = single.build(V1, {key: value for key, value in strings("v").items() if key_slot(key) in FILES[0]})  # one unit
    single.want(v1=Goal.ACTIVE)
    single.node.launch(trap.environment)
    trap.wait()
    key = built.manifest.samples[0].key
    assert single.call(key, "DEL") == b":1\r\n"
    assert single.call(key, "HSET", "field", "mine") == b":1\r\n"
    trap.go_on()
    single.reach(V1, State.ACTIVE)
    found = single.node.until("person", V1, State.ACTIVE)
    assert (found.samples_checked, found.samples_changed, found.error) == (len(built.manifest.samples), 1, None)
    assert "step failed" not in single.node.log
    assert single.call(key, "HGET", "field") == b"$4\r\nmine\r\n"


def test_collections_are_replaced_as_wholes_and_what_is_left_of_them_is_swept(single: Scene) -> None:
    single.node.start()
    key, slot = b"person:big", key_slot(b"person:big")
    head = element_head(Kind.HASH_FIELD, key, 77, slot)
    elements = {head + b"f%d" % number: b"v%d" % number for number in range(1_000)}
    single.node.until_true("the topology", lambda status: status.topology_epoch == 2)
    for field_ in ("before", "f1"):
        single.call(key, "HSET", field_, "mine")
    single.build(V1, {key: encode_big(ValueType.HASH, 77, 1_000), b"person:other": encode_hash([(b"a", b"1")])}, elements, "hash")
    single.want(v1=Goal.ACTIVE)
    single.reach(V1, State.ACTIVE)
    assert single.call(key, "HLEN") == b":1000\r\n"
    assert single.call(key, "HGET", "f1") == b"$2\r\nv1\r\n"
    assert single.call(key, "HGET", "before") == b"$-1\r\n"
    single.call(key, "HSET", "f1", "mine", "more", "mine")
    single.build(V2, {key: encode_hash([(b"after", b"2")]), b"person:other": None}, kind="hash")
    single.want(v2=Goal.ACTIVE)
    single.reach(V2, State.ACTIVE)
    assert single.call(key, "HGETALL") == b"*2\r\n$5\r\nafter\r\n$1\r\n2\r\n"
    assert single.call(b"person:other", "EXISTS") == b":0\r\n"


CRASHES: list[str] = [  # in the order in which a load comes by
    sidecar_point(State.ABSENT, Event.STAGE),
    sidecar_point(State.STAGING, Event.STAGE_DONE),
    sidecar_point(State.STAGED, Event.INGEST),
    *(point for point in IngestPoint if point is not IngestPoint.LAID),  # which only a delta has
    sidecar_point(State.INGESTING, Event.INGEST_DONE),
    *UpsertPoint,
    sidecar_point(State.READY, Event.ACTIVATE),
]
IN_A_SHARD = {UpsertPoint.INGESTING, UpsertPoint.INGESTED}
SHORT = {IngestPoint.ANSWERED, UpsertPoint.INGESTED}  # alone in make test, too: the sidecar goes on by itself; a client's write stands
ROWS_ARE_IN = {UpsertPoint.INGESTED, UpsertPoint.UNIT_IN, sidecar_point(State.READY, Event.ACTIVATE)}  # those of the first unit, at least


def kill_at(single: Scene, trap: Trap) -> None:
    """The load is driven into the trap; who is in it dies. The shard runs afterwards; the sidecar, if the ingest process died."""
    (shard,) = single.shards
    if trap.point in IN_A_SHARD:
        shard.kill()
        shard.environment = trap.environment
        shard.start()
        shard.environment = {}
    single.node.kill()
    single.node.launch(trap.environment)
    trap.wait()
    if trap.point in IN_A_SHARD:
        assert shard.process is not None
        assert shard.process.wait(WAIT_S) == -signal.SIGKILL
        single.node.kill()
        shard.start()
    elif trap.point not in {*IngestPoint}:
        assert single.node.process is not None
        assert single.node.process.wait(WAIT_S) == -signal.SIGKILL


def ends_with_all_rows(single: Scene, points: list[str], tmp_path: Path) -> None:
    """A load is killed at these points, one after the other, and ends as if nothing had been; what clients wrote meanwhile stands."""
    mine = SlotRange(first=0, last=9_000)  # ends within a file: some of its slots are foreign
    single.own(mine, epoch=3)
    rows = {**strings("v", range(300)), b"person:gone": None}
    single.build(V1, rows)
    single.want(v1=Goal.ACTIVE)
    own = {key: value for key, value in rows.items() if key_slot(key) in mine and value is not None}
    written = min(own, key=meta_key)  # of the first unit
    expected = dict(own)
    for number, point in enumerate(points):
        kill_at(single, Trap(point, tmp_path))
        if point in ROWS_ARE_IN:
            assert single.call(written, "GET") != b"$-1\r\n"
            assert single.call(written, "SET", f"mine {number}") == b"+OK\r\n"
            expected[written] = encode_string(b"mine %d" % number)
    if points[-1] not in {*IngestPoint}:  # else it goes on by itself
        single.node.kill()
        single.node.start()
    single.node.until_answers()
    single.reach(V1, State.ACTIVE)
    assert read_all(single.shards, own) == expected
    single.node.until_true("a clean disk", lambda _: single.clean())
    (shard,) = single.shards
    shard.kill()
    assert {parse_key(key).user_key for key in in_live(shard)} == own.keys()


def test_kills_everywhere_change_nothing_of_what_stands_in_the_end(single: Scene, tmp_path: Path) -> None:
    points = [one for one in CRASHES if one != IngestPoint.ANSWERED]  # what is published is not prepared again
    ends_with_all_rows(single, points, tmp_path)


@pytest.mark.parametrize("point", [one if one in SHORT else pytest.param(one, marks=pytest.mark.full) for one in CRASHES])
def test_a_kill_changes_nothing_of_what_stands_in_the_end(single: Scene, tmp_path: Path, point: str) -> None:
    ends_with_all_rows(single, [point], tmp_path)


def test_a_slot_that_is_gained_later_brings_its_rows_and_no_others(single: Scene) -> None:
    rows = {key: value for key, value in strings("v").items() if value is not None}
    before, after = SlotRange(first=0, last=9_000), SlotRange(first=0, last=15_000)
    single.own(before, epoch=3)
    single.build(V1, rows)
    single.want(v1=Goal.ACTIVE)
    single.node.start()
    single.reach(V1, State.ACTIVE)
    written = next(key for key in rows if key_slot(key) in before)
    single.call(written, "SET", "mine")
    single.own(after, epoch=4)
    single.node.wake()
    single.node.until_true("the new slots", lambda status: status.topology_epoch == 4)
    single.node.until("person", V1, State.ACTIVE)
    mine = {key: value for key, value in rows.items() if key_slot(key) in after}
    single.node.until_true("their rows", lambda _: read_all(single.shards, mine) == {**mine, written: encode_string(b"mine")})
    single.node.until_true("a clean disk", lambda _: single.clean())


def test_a_deadline_keeps_units_above_the_pace_that_readers_leave(single: Scene, tmp_path: Path) -> None:
    """Readers whose budget nobody can keep would make it wait for ever; a spec's deadline, missed long ago, leaves it half of its speed.
    The shard stands still when the first unit is in, so that there is time to see it.
    """
    (shard,) = single.shards
    trap = Trap(UpsertPoint.INGESTED, tmp_path, "STOP")
    shard.kill()
    shard.environment = trap.environment
    shard.start()
    rows = {key: value for key, value in strings("v").items() if value is not None}
    spec = {"deadline_minutes": 1}
    single.built[V1] = build_version(single.s3.store, "person", V1, rows, prefix=PREFIX, mode="upsert", partitions=FILES, spec=spec)
    single.node.options = {"readers_p99_ms_max": 0.0001, "pace_min": 0.0}
    single.node.start()
    single.want(v1=Goal.READY)
    single.reach(V1, State.READY)
    with reading(shard):
        single.node.until_true("readers to be noticed", lambda status: status.throttle.pace < 1.0)
        single.want(v1=Goal.ACTIVE)
        single.node.wake()
        trap.wait()
        single.node.until_true("the floor", lambda status: status.throttle.reason.endswith("not slower, for a deadline"))
        trap.go_on()
        single.reach(V1, State.ACTIVE)
        single.node.until_true("no floor any more", lambda status: "deadline" not in status.throttle.reason)
    assert read_all(single.shards, rows) == rows


def test_slots_that_move_while_it_is_ready_are_prepared_anew(single: Scene) -> None:
    rows = {key: value for key, value in strings("v").items() if value is not None}
    single.build(V1, rows)
    single.want(v1=Goal.READY)
    single.node.start()
    single.reach(V1, State.READY)
    mine = SlotRange(first=1_000, last=9_000)
    single.own(mine, epoch=3)
    single.want(v1=Goal.ACTIVE)
    single.reach(V1, State.ACTIVE)
    single.shards[0].kill()
    assert {parse_key(key).user_key for key in in_live(single.shards[0])} == {key for key in rows if key_slot(key) in mine}


def test_what_is_not_in_can_be_taken_back_and_leaves_nothing(single: Scene) -> None:
    single.build(V1, strings("v"))
    single.node.start()
    single.want(v1=Goal.READY)
    single.reach(V1, State.READY)
    single.node.control("cancel", "person", V1)
    single.reach(V1, State.FAILED)
    single.node.until_true("a clean disk", lambda _: single.clean())
    single.node.control("retry", "person", V1)
    single.reach(V1, State.READY)
    single.head.want()
    single.node.wake()
    single.node.until_true("nothing to be left", lambda status: not status.datasets and single.clean())
    assert single.call("person:1", "GET") == b"$-1\r\n"
    single.want(v1=Goal.ACTIVE)
    single.reach(V1, State.ACTIVE)
    refused = single.node.ask("POST", f"versions/person/{V1}/cancel")
    assert (refused.status_code, refused.json()["error"]) == (httpx.codes.CONFLICT, "VersionActiveError"), refused.text


def test_what_is_half_in_is_paused_and_resumed_but_not_taken_back(single: Scene, tmp_path: Path) -> None:
    rows = {key: value for key, value in strings("v").items() if value is not None}
    (shard,) = single.shards
    trap = Trap(UpsertPoint.INGESTED, tmp_path, "STOP")
    shard.kill()
    shard.environment = trap.environment
    shard.start()
    single.node.start()
    single.build(V1, rows)
    single.want(v1=Goal.ACTIVE)
    single.node.wake()
    trap.wait()
    single.node.control("pause", "person", V1)
    trap.go_on()
    single.node.until_true("the pause", lambda status: status.find("person", V1).step == "paused by an operator")  # type: ignore[union-attr]
    there = [key for key, value in read_all(single.shards, rows).items() if value is not None]
    assert 0 < len(there) < len(rows)
    refused = single.node.ask("POST", f"versions/person/{V1}/cancel")
    assert (refused.status_code, refused.json()["error"]) == (httpx.codes.CONFLICT, "VersionActiveError"), refused.text
    single.call(there[0], "SET", "mine")
    single.node.control("resume", "person", V1)
    single.reach(V1, State.ACTIVE)
    assert read_all(single.shards, rows) == {**rows, there[0]: encode_string(b"mine")}
    single.node.until_true("a clean disk", lambda _: single.clean())


def test_replicated_slots_refuse_it_by_name(scene: Scene) -> None:
    one, two = scene.shards
    everything = (SlotRange(first=0, last=SLOT_COUNT - 1),)
    primary = Shard(name=one.name, host="127.0.0.1", port=one.port, slots=everything)
    replica = Shard(name=two.name, host="127.0.0.1", port=two.port, slots=(), replica_of=one.name)
    here = Node(name="node-1", sidecar_url=f"http://127.0.0.1:{scene.node.port}", shards=(primary, replica))
    scene.head.topology(Topology(cluster="test", epoch=3, nodes=(here,)))
    scene.build(V1, strings("v"))
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.FAILED)
    found = scene.node.until("person", V1, State.FAILED)
    assert found.error is not None
    assert found.error["error"] == ReplicatedSlotsError.__name__
    assert scene.call("person:1", "GET") == b"$-1\r\n"
