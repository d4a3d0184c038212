"""Slots that come and go while a version is loaded, is ready, or is read: what is needed is fetched, what is foreign goes, no more."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rocksdict import AccessType, Options, Rdict

from ingest_sidecar.documents import Memory
from ingest_sidecar.progress import sidecar_point
from pipeline.format.admin import ShardStatus
from pipeline.format.crashpoints import IngestPoint, ShardPoint
from pipeline.format.desired import Goal
from pipeline.format.keys import parse_key
from pipeline.format.slots import SlotRange, even_ranges, key_slot, slot_set
from pipeline.format.topology import Node, Shard, Topology
from pipeline.format.values import encode_string
from pipeline.load.states import Event, State
from pipeline.load.status import NodeStatus
from tests.support.crash import Trap
from tests.support.proxy import Proxy
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess
from tests.support.sidecars import WAIT_S, Head, NodeUnderTest, node_under_test
from tests.support.values import read_all
from tests.support.versions import BuiltVersion, build_version

V1 = "2026-11-21"
PREFIX = "person:"
FILES = even_ranges(8)  # a file each
LEFT = SlotRange(first=0, last=FILES[3].last)
SOME = SlotRange(first=FILES[4].first, last=FILES[5].last)
WHOLE = SlotRange(first=FILES[4].first, last=FILES[7].last)
TORN = SlotRange(first=FILES[4].first, last=FILES[5].first + 99)  # ends within a file
SMALL_TALK_BYTES = 128 << 10  # documents, manifests, headers; a file has more than twice as much


def strings(seed: int, count: int = 800, value_bytes: int = 3000) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


ROWS = strings(1)


@pytest.fixture
def head(s3: S3) -> Head:
    return Head(s3.store)


@pytest.fixture
def node(tmp_path: Path, s3: S3, proxy: Proxy, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards, {"downloads_max": 1, "poll_s": 5.0}, through=proxy) as one:
        yield one


@pytest.fixture
def built(s3: S3) -> BuiltVersion:
    return build_version(s3.store, "person", V1, ROWS, prefix=PREFIX, partitions=FILES)


def follow(head: Head, shards: Sequence[ShardProcess], second: SlotRange, epoch: int) -> Topology:
    """The first shard owns the left half, the second one `second`, and a node of which nothing is known the rest; the topology."""
    rest = [one for one in FILES[4:] if not second.overlaps(one)]
    members = [
        Shard(name=one.name, host="127.0.0.1", port=one.port, slots=(slots,)) for one, slots in zip(shards, (LEFT, second), strict=True)
    ]
    other = Shard(name="other", host="127.0.0.1", port=1, slots=tuple(rest))
    here = Node(name="node-1", sidecar_url="http://127.0.0.1:1", shards=tuple(members))
    topology = Topology(cluster="test", epoch=epoch, nodes=(here, Node(name="node-2", sidecar_url="http://127.0.0.1:1", shards=(other,))))
    head.topology(topology)
    return topology


def bytes_of(built: BuiltVersion, *slots: SlotRange) -> int:
    return sum(one.bytes for one in built.manifest.files if any(mine.overlaps(one.slots) for mine in slots))


def check_content(node: NodeUnderTest, second: SlotRange) -> None:
    """Every shard serves its slots, and its directory holds nothing else."""
    mine = slot_set([LEFT, second])
    rows = {key: value for key, value in ROWS.items() if key_slot(key) in mine}
    assert read_all(node.shards, rows) == rows
    for shard, slots in zip(node.shards, (LEFT, second), strict=True):
        database = Rdict(
            str(shard.paths.version("person", V1)),
            options=Options(raw_mode=True),
            access_type=AccessType.secondary(str(shard.data_dir / "look")),
        )
        found = {parse_key(key).slot for key in database.keys() if isinstance(key, bytes)}  # noqa: SIM118 -- no dictionary
        database.close()
        assert found == {key_slot(key) for key in rows if key_slot(key) in slots}


def epoch_of(shard: ShardProcess) -> int:
    with RawClient(shard.admin_socket) as client:
        return ShardStatus.from_json(client.call("REDKV", "STATUS").partition(b"\r\n")[2], "STATUS").topology_epoch


def until_told(node: NodeUnderTest, shards: Sequence[ShardProcess], epoch: int) -> None:
    node.until_true("the shards to follow", lambda _: all(epoch_of(one) == epoch for one in shards))


def until_followed(node: NodeUnderTest, epoch: int, state: State) -> None:
    node.wake()
    node.until_true(f"epoch {epoch}", lambda status: status.topology_epoch == epoch)
    node.until("person", V1, state)


@pytest.mark.parametrize(("before", "after"), [(SOME, WHOLE), (WHOLE, SOME), (WHOLE, TORN)])
def test_while_it_is_downloaded(
    node: NodeUnderTest, head: Head, proxy: Proxy, built: BuiltVersion, shards: list[ShardProcess], before: SlotRange, after: SlotRange
) -> None:
    follow(head, shards, before, 2)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    proxy.hold_after(bytes_of(built, LEFT, SOME) - 100_000)
    node.start()
    assert proxy.held.wait(WAIT_S)
    proxy.release_new()
    for epoch in (3, 4, 5):  # the work is told to end in each of these turns, and ends no sooner than its threads
        follow(head, shards, after, epoch)
        node.wake()
        until_told(node, shards, epoch)
    assert node.until("person", V1, State.STAGING).bytes_total == bytes_of(built, LEFT, before)
    proxy.release()
    until_followed(node, 5, State.ACTIVE)
    found = node.until("person", V1, State.ACTIVE)
    assert found.bytes_total == bytes_of(built, LEFT, after)
    assert proxy.answered_bytes < bytes_of(built, LEFT, before) + bytes_of(built, after) - bytes_of(built, SOME) + SMALL_TALK_BYTES
    check_content(node, after)
    assert not node.staged_files()


@pytest.mark.parametrize(("before", "after"), [(SOME, WHOLE), (WHOLE, SOME), (WHOLE, TORN)])
@pytest.mark.parametrize("state", [State.STAGED, State.INGESTING, State.READY, State.ACTIVE])
def test_when_it_is_here_only_what_is_new_is_fetched(
    tmp_path: Path,
    node: NodeUnderTest,
    head: Head,
    proxy: Proxy,
    built: BuiltVersion,
    shards: list[ShardProcess],
    state: State,
    before: SlotRange,
    after: SlotRange,
) -> None:
    goal = {State.STAGED: Goal.STAGED, State.ACTIVE: Goal.ACTIVE}.get(state, Goal.READY)
    trap = Trap(IngestPoint.FILLED, tmp_path, "STOP")
    follow(head, shards, before, 2)
    head.want(person=(PREFIX, [built.wanted(goal)]))
    node.launch(trap.environment if state is State.INGESTING else None)
    node.until_answers()
    if state is State.INGESTING:
        trap.wait()
    node.until("person", V1, state)
    had = proxy.answered_bytes
    follow(head, shards, after, 3)
    until_followed(node, 3, State.READY if state is State.INGESTING else state)
    new = [one for one in FILES[4:] if after.overlaps(one) and not before.overlaps(one)]
    assert proxy.answered_bytes - had < bytes_of(built, *new) + SMALL_TALK_BYTES
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    check_content(node, after)
    assert not node.staged_files()


def test_while_it_is_on_its_way_to_its_activation(
    tmp_path: Path, node: NodeUnderTest, head: Head, built: BuiltVersion, shards: list[ShardProcess]
) -> None:
    """A shard that has gained slots meanwhile refuses a directory without them; that is no failure of the load."""
    trap = Trap(sidecar_point(State.INGESTING, Event.INGEST_DONE), tmp_path, "STOP")
    follow(head, shards, SOME, 2)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.launch(trap.environment)
    trap.wait()
    topology = follow(head, shards, WHOLE, 3)
    for one in shards:
        one.paths.topology.write_bytes(topology.to_json())
        with RawClient(one.admin_socket) as client:
            assert client.call("REDKV", "TOPOLOGY") == b":3\r\n"
    trap.go_on()
    until_followed(node, 3, State.ACTIVE)
    check_content(node, WHOLE)
    assert "SlotsMovedError" in node.log
    assert "fatal" not in node.log


def test_while_its_activation_is_under_way(
    tmp_path: Path, node: NodeUnderTest, head: Head, built: BuiltVersion, shards: list[ShardProcess]
) -> None:
    """What ends while the node looks at a newer topology is compared with it before the node says that it goes by it."""
    trap = Trap(ShardPoint.ACTIVATED, tmp_path, "STOP")
    shards[1].kill()
    shards[1].environment = trap.environment
    shards[1].start()
    follow(head, shards, SOME, 2)
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.start()
    trap.wait()
    follow(head, shards, WHOLE, 3)
    node.wake()
    node.until_true("the newer topology", lambda _: Memory.from_json(node.paths.memory.read_bytes(), "memory").topology_epoch == 3)
    trap.go_on()
    node.until_true("epoch 3", lambda status: status.topology_epoch == 3 and _is_of(status, WHOLE))
    node.until("person", V1, State.ACTIVE)
    check_content(node, WHOLE)


def _is_of(status: NodeStatus, second: SlotRange) -> bool:
    """Whether a version is active; with the keys of these slots then, and of no others."""
    found = status.find("person", V1)
    if found is None or found.state is not State.ACTIVE:
        return False
    mine = slot_set([LEFT, second])
    assert sum(one.keys for one in found.shards.values()) == sum(key_slot(key) in mine for key in ROWS)
    return True


def test_lost_and_gained_again(node: NodeUnderTest, head: Head, built: BuiltVersion, shards: list[ShardProcess]) -> None:
    """Also by a sidecar that was away when it happened."""
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    follow(head, shards, WHOLE, 2)
    node.start()
    node.until("person", V1, State.ACTIVE)
    for epoch, slots in enumerate((TORN, WHOLE, SOME, TORN), 3):
        follow(head, shards, slots, epoch)
        if epoch % 2:
            node.kill()
            node.start()
        until_followed(node, epoch, State.ACTIVE)
        check_content(node, slots)
