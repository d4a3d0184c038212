"""Deltas on a node: a version that lies on another is made whole from what is there, or from the store, and reads as if it were full."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.desired import Goal
from pipeline.format.keys import Kind, element_head, sortable_score
from pipeline.format.layout import IDENTITY_FILE, manifest_key
from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges, key_slot
from pipeline.format.topology import Topology
from pipeline.format.values import ValueType, element_score, encode_big, encode_hash, encode_string
from pipeline.load.states import State
from pipeline.load.status import VersionStatus
from pipeline.load.verification import verify
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, topology_of
from tests.support.sidecars import Head, NodeUnderTest, node_under_test
from tests.support.values import read_all
from tests.support.versions import BuiltVersion, build_delta, build_version

V1, V2, V3 = "2026-11-21", "2026-11-22", "2026-11-23"
PREFIX = "person:"
HALF = SLOT_COUNT // 2
ROWS = 900

Rows = dict[bytes, bytes]


def strings(mark: str, numbers: range = range(ROWS)) -> Rows:
    return {b"person:%d" % number: encode_string(f"{mark}{number}".encode()) for number in numbers}


@pytest.fixture
def head(s3: S3, shards: list[ShardProcess]) -> Head:
    head = Head(s3.store)
    own(head, shards, HALF, 2)
    return head


@pytest.fixture
def node(tmp_path: Path, s3: S3, shards: list[ShardProcess], head: Head) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards) as one:
        one.start()
        yield one


def own(head: Head, shards: list[ShardProcess], border: int, epoch: int) -> Topology:
    """The first shard owns the slots below the border, the second one the others."""
    slots = [[SlotRange(first=0, last=border - 1)], [SlotRange(first=border, last=SLOT_COUNT - 1)]]
    topology = topology_of(shards, slots, epoch=epoch)
    head.topology(topology)
    return topology


def activate(node: NodeUnderTest, head: Head, built: BuiltVersion, *retired: BuiltVersion) -> VersionStatus:
    head.want(person=(PREFIX, [*(one.wanted(Goal.RETIRED) for one in retired), built.wanted(Goal.ACTIVE)]))
    node.wake()
    return node.until("person", built.manifest.version, State.ACTIVE)


def counts(status: VersionStatus) -> tuple[int, int]:
    return sum(one.keys for one in status.shards.values()), sum(one.entries for one in status.shards.values())


def change(rows: Rows, mark: str, gone: range, changed: range) -> tuple[dict[bytes, bytes | None], Rows]:
    """A difference, and the rows that it makes of these."""
    delta: dict[bytes, bytes | None] = {**strings(mark, changed), **{b"person:%d" % number: None for number in gone}}
    after = {key: value for key, value in {**rows, **delta}.items() if value is not None}
    return delta, after


def layers(s3: S3) -> list[tuple[BuiltVersion, Rows]]:
    """A full version, a delta on it, and a delta on that one."""
    rows = strings("a")
    built = [(build_version(s3.store, "person", V1, rows, prefix=PREFIX), rows)]
    for version, mark, gone, changed in ((V2, "b", range(7), range(100, 130)), (V3, "c", range(120, 125), range(890, 950))):
        delta, rows = change(rows, mark, gone, changed)
        built.append((build_delta(s3.store, built[-1][0], version, delta, whole=(len(rows), len(rows))), rows))
    return built


def check(shards: list[ShardProcess], rows: Rows) -> None:
    """Clients read these rows, and of no others that any version had."""
    absent = {key: value for mark in "abc" for key, value in strings(mark, range(1000)).items() if key not in rows}
    assert read_all(shards, rows) == rows
    assert read_all(shards, absent) == dict.fromkeys(absent)


def test_a_delta_on_a_delta_reads_as_a_full_version_and_the_way_back_is_a_swap(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    (first, one), (second, two), (third, three) = layers(s3)
    activate(node, head, first)
    found = activate(node, head, second, first)
    assert counts(found) == (len(two), len(two))
    assert sum(one.deletes or 0 for one in found.shards.values()) == 7
    assert sum(one.applied_keys or 0 for one in found.shards.values()) == second.manifest.totals.keys == 30
    assert found.bytes_total == second.manifest.totals.bytes
    check(shards, two)
    assert counts(activate(node, head, third, first, second)) == (len(three), len(three))
    check(shards, three)
    for built, rows in ((first, one), (third, three), (second, two)):
        others = [other for other in (first, second, third) if other is not built]
        head.want(person=(PREFIX, sorted([built.wanted(Goal.ACTIVE), *(o.wanted(Goal.RETIRED) for o in others)], key=lambda v: v.version)))
        node.wake()
        node.until("person", built.manifest.version, State.ACTIVE)
        for other in others:
            node.until("person", other.manifest.version, State.RETIRED)
        check(shards, rows)


def test_a_node_without_the_base_fetches_the_chain(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    first, second, third = (built for built, _ in layers(s3))
    found = activate(node, head, third)
    assert found.bytes_total == sum(one.manifest.totals.bytes for one in (first, second, third))
    rows = layers_rows()
    assert counts(found) == (len(rows), len(rows))
    check(shards, rows)
    assert not node.staged_files()
    fourth_rows, after = change(rows, "c", range(200, 210), range(300, 310))
    fourth = build_delta(s3.store, third, "2026-11-24", fourth_rows, whole=(len(after), len(after)))
    assert activate(node, head, fourth, third).bytes_total == fourth.manifest.totals.bytes  # on what was made of the chain
    check(shards, after)


def layers_rows() -> Rows:
    """The rows of the last of `layers`."""
    rows = strings("a")
    for mark, gone, changed in (("b", range(7), range(100, 130)), ("c", range(120, 125), range(890, 950))):
        _, rows = change(rows, mark, gone, changed)
    return rows


def test_the_base_may_go_from_the_node_and_the_delta_stays_whole(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    (first, _), (second, rows), _ = layers(s3)
    activate(node, head, first)
    activate(node, head, second, first)
    activate(node, head, second)
    node.until_true("the base to be gone", lambda _: not any((one.paths.versions / "person" / V1).exists() for one in shards))
    for shard in shards:
        shard.kill()
        shard.start()
    node.until_true("the shards", lambda status: status.error is None)
    check(shards, rows)


@pytest.mark.parametrize("base_here", [True, False])
def test_slots_that_moved_in_bring_the_whole_chain(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], *, base_here: bool
) -> None:
    (first, _), (second, _), (third, rows) = layers(s3)
    activate(node, head, first)
    activate(node, head, third, *((first, second) if base_here else ()))
    for border, epoch in ((3 * SLOT_COUNT // 4, 3), (SLOT_COUNT // 5, 4)):
        topology = own(head, shards, border, epoch)
        node.wake()
        node.until_true("the new slots", lambda status, epoch=epoch: status.topology_epoch == epoch)  # type: ignore[misc]
        found = node.until("person", V3, State.ACTIVE)
        node.until_true("all shards to follow", lambda _: counts(node.until("person", V3, State.ACTIVE)) == (len(rows), len(rows)))
        assert found.error is None
        verify(third.manifest, topology, {"node-1": node.until("person", V3, State.ACTIVE)})  # one lost count of what the delta changed
        check(shards, rows)


def test_large_collections_are_changed_replaced_and_deleted(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    def fields(key: bytes, version: int, numbers: range, mark: bytes) -> Rows:
        return {element_head(Kind.HASH_FIELD, key, version) + b"f%04d" % one: mark + b"%d" % one for one in numbers}

    big = {name: encode_big(ValueType.HASH, 1, 1000) for name in (b"person:changed", b"person:replaced", b"person:gone", b"person:small")}
    elements = {key: value for name in big for key, value in fields(name, 1, range(1000), b"old").items()}
    first = build_version(s3.store, "person", V1, big, prefix=PREFIX, elements=elements, kind="hash")
    activate(node, head, first)
    rows: dict[bytes, bytes | None] = {
        b"person:changed": encode_big(ValueType.HASH, 1, 995),
        b"person:replaced": encode_big(ValueType.HASH, 2, 700),
        b"person:gone": None,
        b"person:small": encode_hash([(b"f", b"now")]),
    }
    changes: dict[bytes, bytes | None] = {
        **fields(b"person:changed", 1, range(10), b"new"),
        **dict.fromkeys(fields(b"person:changed", 1, range(990, 995), b"")),
        **fields(b"person:replaced", 2, range(700), b"other"),
        **dict.fromkeys(fields(b"person:gone", 1, range(1000), b"")),
    }
    second = build_delta(s3.store, first, V2, rows, elements=changes)
    found = activate(node, head, second, first)
    assert counts(found) == (3, 3 + 995 + 700 + 2 * 1000)  # what is left of two keys is reached by nobody
    with RawClient(shards[0].port) as one, RawClient(shards[1].port) as other:

        def ask(*words: str) -> bytes:
            reply = one.call(*words)
            return other.call(*words) if reply.startswith(b"-MOVED") else reply

        assert ask("HLEN", "person:changed") == b":995\r\n"
        assert ask("HMGET", "person:changed", "f0003", "f0500", "f0992") == b"*3\r\n$4\r\nnew3\r\n$6\r\nold500\r\n$-1\r\n"
        assert ask("HGETALL", "person:changed").startswith(b"*1990\r\n")
        assert ask("HLEN", "person:replaced") == b":700\r\n"
        assert ask("HMGET", "person:replaced", "f0003", "f0900") == b"*2\r\n$6\r\nother3\r\n$-1\r\n"
        assert ask("HGETALL", "person:replaced").startswith(b"*1400\r\n")
        assert ask("EXISTS", "person:gone") == b":0\r\n"
        assert ask("HGETALL", "person:gone") == b"*0\r\n"
        assert ask("HGETALL", "person:small") == b"*2\r\n$1\r\nf\r\n$3\r\nnow\r\n"


def test_members_of_a_large_sorted_set_move_and_go(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    key = b"person:{a}"

    def member(name: bytes, score: float) -> Rows:
        rank = element_head(Kind.ZSET_RANK, key, 1) + sortable_score(score) + name
        return {element_head(Kind.ZSET_MEMBER, key, 1) + name: element_score(score), rank: b""}

    elements: Rows = {}
    for number in range(600):
        elements |= member(b"m%d" % number, number)
    rows: Rows = {key: encode_big(ValueType.ZSET, 1, 600)}
    first = build_version(s3.store, "person", V1, rows, prefix=PREFIX, elements=elements, kind="zset")
    activate(node, head, first)
    gone: dict[bytes, bytes | None] = {
        **dict.fromkeys(member(b"m0", 0)),
        **dict.fromkeys([k for k, v in member(b"m1", 1).items() if not v]),
    }
    delta = build_delta(
        s3.store,
        first,
        V2,
        {key: encode_big(ValueType.ZSET, 1, 599)},
        elements={**gone, **member(b"m1", 1000)},
        whole=(1, 1 + 2 * 599),
    )
    assert counts(activate(node, head, delta, first)) == (1, 1 + 2 * 599)
    with RawClient(shards[0].port) as one, RawClient(shards[1].port) as other:
        replies = [client.call("ZRANGE", key, 0, 0) + client.call("ZRANGE", key, -1, -1) for client in (one, other)]
    assert b"*1\r\n$2\r\nm2\r\n*1\r\n$2\r\nm1\r\n" in replies


def test_a_base_that_is_neither_here_nor_in_the_store_is_named(node: NodeUnderTest, head: Head, s3: S3) -> None:
    (first, _), (second, _), _ = layers(s3)
    s3.store.delete(manifest_key("person", V1))
    head.want(person=(PREFIX, [second.wanted(Goal.READY)]))
    node.wake()
    failed = node.until("person", V2, State.FAILED)
    assert failed.error is not None
    assert (failed.error["error"], failed.error["fields"]["base"]) == ("BaseMissingError", V1)
    s3.store.create(
        manifest_key("person", V1), build_version(s3.store, "person", "2026-11-20", strings("x"), prefix=PREFIX).manifest.to_json()
    )
    node.wake()
    node.until_true(
        "the other build to be named",
        lambda status: ((status.find("person", V2) or failed).error or {}).get("error") == "BaseChangedError",
    )
    assert first.manifest.build_id in (node.until("person", V2, State.FAILED).error or {})["message"]


def test_another_build_of_the_base_on_the_node_is_not_taken(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    (first, _), (second, rows), _ = layers(s3)
    data = s3.store.get(manifest_key("person", V1)).data
    s3.store.delete(manifest_key("person", V1))
    other = build_version(s3.store, "person", V1, strings("x"), prefix=PREFIX)
    head.want(person=(PREFIX, [other.wanted(Goal.READY)]))
    node.wake()
    node.until("person", V1, State.READY)
    s3.store.delete(manifest_key("person", V1))
    s3.store.create(manifest_key("person", V1), data)
    assert activate(node, head, second, other).bytes_total == first.manifest.totals.bytes + second.manifest.totals.bytes
    check(shards, rows)


def test_a_staged_file_that_broke_is_fetched_again_and_the_base_stays_the_base(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    (first, old), (second, rows), _ = layers(s3)
    activate(node, head, first)
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE), second.wanted(Goal.STAGED)]))
    node.wake()
    node.until("person", V2, State.STAGED)
    broken = next(one for one in second.manifest.files if one.entries)
    path = node.paths.staged_build("person", V2, second.manifest.build_id) / Path(broken.object_key).name
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 4] ^= 1
    path.write_bytes(changed)
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE), second.wanted(Goal.READY)]))
    node.wake()
    error = node.until("person", V2, State.FAILED).error
    assert error is not None
    assert error["fields"]["key"].encode() in rows.keys() - old.items()
    head.want(person=(PREFIX, [first.wanted(Goal.RETIRED), second.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_tried_again("person", V2)
    assert node.until("person", V2, State.ACTIVE).bytes_total == second.manifest.totals.bytes
    check(shards, rows)


def test_a_value_that_changed_in_the_base_s_directory_is_in_no_delta_on_it_and_its_key_is_named(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    """A sound SST file, of the same size, in which one value is another; the delta has neither the key nor a sample of it."""
    chosen = random.Random(1)
    rows = {key: encode_string(chosen.randbytes(16)) for key in strings("a")}
    first = build_version(s3.store, "person", V1, rows, prefix=PREFIX, partitions=even_ranges(2), samples_every=1000)
    activate(node, head, first)
    elsewhere = s3.fresh().store
    other = {**rows, b"person:800": bytes([*rows[b"person:800"][:-1], rows[b"person:800"][-1] ^ 1])}
    wrong = build_version(elsewhere, "person", V1, other, prefix=PREFIX, partitions=even_ranges(2))
    index = next(index for index, one in enumerate(first.manifest.files) if key_slot(b"person:800") in one.slots)
    [path] = shards[index].paths.version("person", V1).glob("*.sst")
    changed = path.with_name("changed")
    changed.write_bytes(elsewhere.get(wrong.manifest.files[index].object_key).data)
    assert changed.stat().st_size == path.stat().st_size
    changed.rename(path)
    delta, after = change(rows, "c", range(7), range(100, 130))
    second = build_delta(s3.store, first, V2, delta, whole=(len(after), len(after)))
    assert activate(node, head, second, first).bytes_total > first.manifest.files[index].bytes
    check(shards, after)
    [told] = [line for line in node.log.splitlines() if "the first key that differs is person:800" in line]
    assert all(word in told for word in ("person", V2, "node-1", str(path), "is made again, of files from the store alone"))


def test_a_broken_directory_of_the_base_is_not_built_on(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    (first, _), (second, rows), _ = layers(s3)
    activate(node, head, first)
    for shard in shards:
        (shard.paths.version("person", V1) / "CURRENT").write_text("nonsense")
    assert (shards[0].paths.version("person", V1) / IDENTITY_FILE).exists()
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE), second.wanted(Goal.READY)]))
    node.wake()
    assert node.until("person", V2, State.READY).bytes_total == first.manifest.totals.bytes + second.manifest.totals.bytes
    activate(node, head, second, first)
    check(shards, rows)
