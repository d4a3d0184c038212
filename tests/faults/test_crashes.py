"""kill -9 at every transition of the state machine, of every process that takes part; after a restart, the content is what was wanted.

Here the processes kill themselves at the crash points of pipeline/format/crashpoints.py; at the end, in `make test-full`, others are
killed while one of them stands there. What one load comes by is here in one load, death after death, and in `make test-full` each by
itself. The sidecar's points are those of the transition table: a transition without a scenario fails here, and so does a point of the
ingest process or the shard that no load comes by. The coordinator's own are in test_coordinator_crashes.py, those of an upsert in
test_upserts.py; the real kills here are in loads of both modes, and at the transitions that are on no load's way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ingest_sidecar.progress import sidecar_point
from pipeline.format.crashpoints import IngestPoint, ShardPoint, UpsertPoint
from pipeline.format.desired import Goal
from pipeline.format.records import Mode
from pipeline.format.slots import SLOT_COUNT, SlotRange
from pipeline.format.values import encode_hash, encode_string
from pipeline.load.states import TRANSITIONS, Event, State
from pipeline.spec import DatasetSpec
from tests.support.builds import build, hash_spec
from tests.support.crash import Trap
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.scenes import MINE, ROWS, V1, V2, Scene, Victim
from tests.support.shards import running_shards
from tests.support.sidecars import CLUSTER, WAIT_S, Head, NodeUnderTest
from tests.support.values import read_all
from tests.support.versions import build_delta

V0, V3 = "2026-11-20", "2026-11-23"  # before and after those of the scene
MORE = SlotRange(first=0, last=15_000)  # ends within a file, too

Transition = tuple[State, Event]
Scenario = Callable[[Scene, Trap], None]


@pytest.fixture(scope="module")
def stage(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("crash")
    with running_shards(folder, 1) as [shard]:
        node = NodeUnderTest(folder, server.url, server.environment, [shard])
        try:
            yield Scene(folder, server, Head(server.store), shard, node)
        finally:
            node.kill()


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    stage.begin()
    yield stage
    stage.end()


@pytest.fixture
def folder(scene: Scene) -> Path:
    one = scene.folder / scene.name
    one.mkdir()
    return one


LOAD: tuple[Transition, ...] = (
    (State.ABSENT, Event.STAGE),
    (State.STAGING, Event.STAGE_DONE),
    (State.STAGED, Event.INGEST),
    (State.INGESTING, Event.INGEST_DONE),
    (State.READY, Event.ACTIVATE),
)


def test_the_sidecar_dies_at_every_transition_of_a_load(scene: Scene, folder: Path) -> None:
    scene.want(v1=Goal.ACTIVE)
    for transition in LOAD:
        scene.die(Trap(sidecar_point(*transition), folder))
    scene.node.start()
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def swapped(scene: Scene, trap: Trap) -> None:
    """The version before is retired."""
    scene.crash(trap, lambda: scene.activate(Goal.ACTIVE))
    scene.reach(V2, State.ACTIVE)
    scene.reach(V1, State.RETIRED)
    scene.check(V2)


def found_retired(scene: Scene, trap: Trap) -> None:
    """A sidecar that starts finds a retired version."""
    scene.node.start()
    scene.swap()
    scene.crash(trap)
    scene.reach(V1, State.RETIRED)
    scene.check(V2)


def way_back(scene: Scene, trap: Trap) -> None:
    def drive() -> None:
        scene.swap()
        scene.want(v1=Goal.ACTIVE, v2=Goal.RETIRED)

    scene.crash(trap, drive)
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def cancelled(goal: Goal, state: State) -> Scenario:
    """An operator cancels a version that stands there; the cancellation is remembered, and taken back."""

    def run(scene: Scene, trap: Trap) -> None:
        def drive() -> None:
            scene.activate(goal)
            scene.reach(V2, state)
            scene.node.control("cancel", scene.name, V2)

        scene.crash(trap, drive)
        scene.reach(V2, State.FAILED)
        scene.node.control("retry", scene.name, V2)
        scene.want(v1=Goal.RETIRED, v2=Goal.ACTIVE)
        scene.reach(V2, State.ACTIVE)
        scene.check(V2)

    return run


def cancelled_before(scene: Scene, trap: Trap) -> None:
    """A sidecar that starts remembers a cancellation."""
    scene.node.start()
    scene.activate(Goal.STAGED)
    scene.reach(V2, State.STAGED)
    scene.node.control("cancel", scene.name, V2)
    scene.reach(V2, State.FAILED)
    scene.crash(trap)
    scene.reach(V2, State.FAILED)
    scene.check(V1)


def missing_object(scene: Scene, trap: Trap) -> None:
    """Staging fails."""
    key = scene.built[V2].manifest.files[0].object_key
    data = scene.s3.store.get(key).data
    scene.s3.store.delete(key)
    scene.crash(trap, lambda: scene.activate(Goal.READY))
    scene.node.until(scene.name, V2, State.FAILED)  # nobody wakes it: another try could still meet the object as it is now
    assert read_all([scene.shard], scene.mine(V1)) == scene.mine(V1)
    scene.s3.store.create(key, data)
    scene.want(v1=Goal.RETIRED, v2=Goal.ACTIVE)
    scene.node.wake()
    scene.node.until_tried_again(scene.name, V2)
    scene.reach(V2, State.ACTIVE)
    scene.check(V2)


def wrong_sample(scene: Scene, trap: Trap) -> None:
    """Ingestion fails, and will again."""
    scene.build(V3, wrong=True)
    scene.built[V2] = scene.built[V3]
    scene.crash(trap, lambda: scene.activate(Goal.READY))
    scene.reach(V3, State.FAILED)
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def shard_away_at_a_swap(scene: Scene, trap: Trap) -> None:
    """The shard is away when the pointer is to be moved."""

    def drive() -> None:
        scene.activate(Goal.READY)
        scene.reach(V2, State.READY)
        scene.shard.kill()
        scene.want(v1=Goal.RETIRED, v2=Goal.ACTIVE)

    scene.crash(trap, drive)
    scene.shard.start()
    scene.reach(V2, State.ACTIVE)
    scene.check(V2)


def shard_away_at_the_way_back(scene: Scene, trap: Trap) -> None:
    def drive() -> None:
        scene.swap()
        scene.shard.kill()
        scene.want(v1=Goal.ACTIVE, v2=Goal.RETIRED)

    scene.crash(trap, drive)
    scene.shard.start()
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def paused_while_staging(scene: Scene, trap: Trap) -> None:
    scene.want(v1=Goal.ACTIVE)

    def drive() -> None:
        scene.answer()
        scene.reach(V1, State.STAGING)
        scene.node.control("pause", scene.name, V1)

    scene.node.options = {**scene.node.options, "bandwidth_bytes_s": 1}
    scene.crash(trap, drive)
    scene.node.options = {}
    scene.node.ask("PUT", "limits", {"bandwidth_bytes_s": None})
    scene.resume(V1)
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def paused_while_ingesting(scene: Scene, trap: Trap) -> None:
    """It waits for the samples of a shard that does not answer, which is when the operator comes."""
    scene.want(v1=Goal.ACTIVE)
    opened = Trap(ShardPoint.OPENED, trap.folder, "STOP")
    scene.shard.kill()
    scene.shard.environment = opened.environment
    scene.shard.start()

    def drive() -> None:
        scene.answer()
        opened.wait()
        scene.node.control("pause", scene.name, V1)
        assert scene.shard.process is not None
        scene.shard.process.send_signal(signal.SIGCONT)

    scene.crash(trap, drive)
    scene.resume(V1)
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def slots_gained(scene: Scene, trap: Trap) -> None:
    """While a version is staged."""
    scene.want(v1=Goal.STAGED)

    def drive() -> None:
        scene.answer()
        scene.reach(V1, State.STAGED)
        scene.own(MORE)

    scene.crash(trap, drive)
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


def slots_lost(goal: Goal, state: State) -> Callable[[Scene, Trap], None]:
    """While a version is made, or read."""

    def run(scene: Scene, trap: Trap) -> None:
        scene.own(MORE)
        scene.want(v1=goal)

        def drive() -> None:
            scene.answer()
            scene.reach(V1, state)
            scene.own(MINE)

        scene.crash(trap, drive)
        scene.want(v1=Goal.ACTIVE)
        scene.reach(V1, State.ACTIVE)
        scene.check(V1)

    return run


SCENARIOS: dict[Transition, Scenario] = {
    (State.ACTIVE, Event.RETIRE): swapped,
    (State.READY, Event.RETIRE): found_retired,
    (State.RETIRED, Event.ACTIVATE): way_back,
    (State.FAILED, Event.RETRY): shard_away_at_a_swap,
    (State.ABSENT, Event.FAIL): cancelled_before,
    (State.STAGING, Event.FAIL): missing_object,
    (State.STAGED, Event.FAIL): cancelled(Goal.STAGED, State.STAGED),
    (State.INGESTING, Event.FAIL): wrong_sample,
    (State.READY, Event.FAIL): cancelled(Goal.READY, State.READY),
    (State.ACTIVE, Event.FAIL): shard_away_at_a_swap,
    (State.RETIRED, Event.FAIL): shard_away_at_the_way_back,
    (State.STAGING, Event.REMOVE): paused_while_staging,
    (State.STAGED, Event.REMOVE): slots_gained,
    (State.INGESTING, Event.REMOVE): paused_while_ingesting,
    (State.READY, Event.REMOVE): slots_lost(Goal.READY, State.READY),
    (State.RETIRED, Event.REMOVE): slots_lost(Goal.ACTIVE, State.ACTIVE),
}


def test_every_transition_has_its_scenario() -> None:
    assert {*LOAD, *SCENARIOS} == set(TRANSITIONS)


@pytest.mark.parametrize("transition", SCENARIOS, ids=lambda one: f"{one[0]}-{one[1]}")
def test_the_sidecar_dies_at_a_transition(scene: Scene, folder: Path, transition: Transition) -> None:
    SCENARIOS[transition](scene, Trap(sidecar_point(*transition), folder))


OF_FULL_VERSIONS = [point for point in IngestPoint if point is not IngestPoint.LAID]  # which only a delta has


def test_the_ingest_process_dies_everywhere(scene: Scene, folder: Path) -> None:
    scene.want(v1=Goal.ACTIVE)
    for point in OF_FULL_VERSIONS[:-1]:  # what is published is not made again, so it answers no more
        trap = Trap(point, folder)
        scene.node.kill()
        scene.node.launch(trap.environment)
        trap.wait()
    scene.answer()
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


@pytest.mark.parametrize(
    "point", [one if one is IngestPoint.ANSWERED else pytest.param(one, marks=pytest.mark.full) for one in OF_FULL_VERSIONS]
)
def test_the_ingest_process_dies_and_its_sidecar_goes_on(scene: Scene, folder: Path, point: IngestPoint) -> None:
    trap = Trap(point, folder)
    scene.want(v1=Goal.ACTIVE)
    scene.node.launch(trap.environment)
    scene.answer()
    scene.reach(V1, State.ACTIVE)
    assert trap.sprung
    assert "IngestProcessError" in scene.node.log
    scene.check(V1)


AS_OF_FULL_VERSIONS = (IngestPoint.FILLED, IngestPoint.SYNCED, IngestPoint.PUBLISHED)  # which is shown above


@pytest.mark.parametrize("point", [IngestPoint.LAID, *(pytest.param(one, marks=pytest.mark.full) for one in AS_OF_FULL_VERSIONS)])
def test_the_ingest_process_dies_over_a_delta(scene: Scene, folder: Path, point: IngestPoint) -> None:
    trap = Trap(point, folder)
    scene.node.start()
    scene.want(v1=Goal.ACTIVE)
    scene.reach(V1, State.ACTIVE)
    first, *changed = sorted(scene.rows[V1])
    delta: dict[bytes, bytes | None] = {**{key: encode_string(b"new") for key in changed[::3]}, first: None}
    built = build_delta(scene.s3.store, scene.built[V1], V3, delta)
    scene.rows[V3] = {key: value for key, value in {**scene.rows[V1], **delta}.items() if value is not None}
    scene.node.kill()
    scene.node.launch(trap.environment)
    scene.answer()
    scene.head.want(**{scene.name: (f"{scene.name}:", [scene.built[V1].wanted(Goal.RETIRED), built.wanted(Goal.ACTIVE)])})
    scene.reach(V3, State.ACTIVE)
    assert trap.sprung
    scene.check(V3)


OF_NO_LOAD = (ShardPoint.CLOSED, ShardPoint.UNREGISTERED)  # but of what comes after it
OF_A_LOAD = [point for point in ShardPoint if point not in OF_NO_LOAD]


def test_the_shard_dies_everywhere(scene: Scene, folder: Path) -> None:
    scene.want(v1=Goal.ACTIVE)
    scene.node.start()
    for point in OF_A_LOAD:
        trap = Trap(point, folder)
        scene.shard.kill()
        scene.shard.environment = trap.environment
        scene.shard.start()
        scene.node.wake()
        trap.wait()
    scene.shard.kill()
    scene.shard.start()
    scene.reach(V1, State.ACTIVE)
    scene.check(V1)


@pytest.mark.parametrize("point", [*OF_NO_LOAD, *(pytest.param(one, marks=pytest.mark.full) for one in OF_A_LOAD)])
def test_the_shard_dies(scene: Scene, folder: Path, point: ShardPoint) -> None:
    trap = Trap(point, folder)
    scene.shard.kill()
    scene.shard.environment = trap.environment
    scene.shard.start()
    process = scene.shard.process
    assert process is not None
    scene.node.start()
    if point is ShardPoint.UNREGISTERED:
        scene.want(v1=Goal.READY)
        scene.reach(V1, State.READY)
        scene.head.want()
    else:
        scene.want(v1=Goal.ACTIVE)
    scene.node.wake()
    if point is ShardPoint.CLOSED:
        scene.reach(V1, State.ACTIVE)
        scene.want(v1=Goal.RETIRED, v2=Goal.ACTIVE)
        scene.node.wake()
    trap.wait()
    assert process.wait(WAIT_S) == -signal.SIGKILL
    scene.shard.start()
    version = V2 if point is ShardPoint.CLOSED else V1
    if point is not ShardPoint.CLOSED:
        scene.want(v1=Goal.ACTIVE)
    scene.reach(version, State.ACTIVE)
    scene.check(version)


WITHOUT_A_SHARD = {transition for transition, run in SCENARIOS.items() if run in {shard_away_at_a_swap, shard_away_at_the_way_back}}
STANDS: list[tuple[Transition, Victim]] = [(transition, "sidecar") for transition in SCENARIOS]
STANDS += [(transition, "shard") for transition in SCENARIOS if transition not in WITHOUT_A_SHARD]  # there, it is dead already


@pytest.mark.full
@pytest.mark.parametrize(("transition", "victim"), STANDS, ids=lambda one: one if isinstance(one, str) else f"{one[0]}-{one[1]}")
def test_a_real_kill_while_the_sidecar_stands_at_a_transition(scene: Scene, folder: Path, transition: Transition, victim: Victim) -> None:
    """At those that are no steps of a load; for these, and the retirement of the version before, see below. No coordinator is killed here:
    failures, operators and topologies lead to these, while it only waits. No ingest process either: none runs in these states, but in
    INGESTING, where it has come to its end (the shard reads samples).
    """
    trap = Trap(sidecar_point(*transition), folder, "STOP")
    scene.victim = victim
    SCENARIOS[transition](scene, trap)
    assert trap.sprung


RETIRING = sidecar_point(State.ACTIVE, Event.RETIRE)  # of the version before the one that is loaded
ON_THE_WAY = [
    RETIRING,
    *(sidecar_point(*transition) for transition in LOAD),
    *(point for point in IngestPoint if point not in {IngestPoint.DROPPED, IngestPoint.LAID}),  # nothing is foreign here, nor a delta
]
HOLDERS: dict[Mode, list[str]] = {
    "replace": [
        *ON_THE_WAY,
        *OF_A_LOAD,
    ],
    "upsert": [*ON_THE_WAY, *UpsertPoint],
}
KILLS = [
    (mode, holder, victim) for mode, holders in HOLDERS.items() for holder in holders for victim in ("sidecar", "shard", "coordinator")
]
# no ingest process runs elsewhere than at its own points
KILLS += [(mode, holder, "ingest") for mode, holders in HOLDERS.items() for holder in holders if isinstance(holder, IngestPoint)]


@pytest.mark.full
@pytest.mark.parametrize(("mode", "holder", "victim"), KILLS)
def test_a_real_kill_while_a_process_stands_at_a_point(scene: Scene, folder: Path, mode: Mode, holder: str, victim: str) -> None:
    """Of any process of a load by the real command, while one of them is stopped there; the same command ends it."""
    scene.own(SlotRange(first=0, last=SLOT_COUNT - 1))
    spec = hash_spec(scene.name, f"{scene.name}:${{id}}", mode=mode)
    build(scene.s3.store, spec, V3, {"id": [str(one) for one in range(ROWS)], "name": [f"name {one}" for one in range(ROWS)]})
    expected = {f"{scene.name}:{one}".encode(): encode_hash([(b"name", b"name %d" % one)]) for one in range(ROWS)}
    command = load_command(scene, folder, spec, V3)
    if holder == RETIRING:
        build(scene.s3.store, spec, V0, {"id": [str(ROWS)], "name": ["of no later version"]})
        scene.node.start()
        assert subprocess.run(load_command(scene, folder, spec, V0), stdout=subprocess.DEVNULL, check=False).returncode == 0
        scene.node.kill()
    trap = Trap(holder, folder, "STOP")
    scene.shard.kill()
    scene.shard.environment = trap.environment
    scene.shard.start()
    scene.node.launch(trap.environment)
    with (folder / "load.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as coordinator:
        trap.wait()
        match victim:
            case "sidecar":
                scene.node.kill()
            case "ingest":
                os.kill(trap.pid, signal.SIGKILL)
            case "shard":
                scene.shard.kill()
            case _:
                coordinator.kill()
        trap.go_on()
        if victim == "shard":
            scene.shard.start()
        if mode == "upsert":
            expected |= written_since(scene, next(iter(expected)))
        if victim == "sidecar":
            scene.node.start()
        assert coordinator.wait(WAIT_S) in {0, -signal.SIGKILL}
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    scene.head.catch_up()
    assert read_all([scene.shard], expected) == expected


def written_since(scene: Scene, key: bytes) -> dict[bytes, bytes]:
    """What a client changes of a row that it finds; nothing if the row is not in yet."""
    with RawClient(scene.shard.port) as client:
        if client.call("EXISTS", key) == b":0\r\n":
            return {}
        assert client.call("HSET", key, "name", "mine") == b":0\r\n"
    return {key: encode_hash([(b"name", b"mine")])}


def load_command(scene: Scene, folder: Path, spec: DatasetSpec, version: str) -> list[str]:
    settings, document = folder / "redkv.toml", folder / "spec.yaml"
    lines = [f'store = "{scene.s3.url}"', f'cluster = "{CLUSTER}"', 'metastore_uris = "thrift://127.0.0.1:1"']
    settings.write_text("\n".join(lines), encoding="utf-8")
    document.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return [sys.executable, "-m", "pipeline.cli", "--config", str(settings), "load", str(document), "--version", version]
