"""A sidecar between real SeaweedFS and two real shards: from a manifest to an active version, the swap, the way back, the removal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.desired import Goal
from pipeline.format.layout import manifest_key
from pipeline.format.slots import SLOT_COUNT, even_ranges, key_slot
from pipeline.format.values import encode_hash, encode_string, encode_zset
from pipeline.load.states import State
from tests.support.disk import lying_below
from tests.support.resp import RawClient
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, topology_of
from tests.support.sidecars import Head, NodeUnderTest, node_under_test
from tests.support.values import read_all, refused_all
from tests.support.versions import build_version

V1, V2, V3 = "2026-11-21", "2026-11-22", "2026-11-23"
PREFIX = "person:"


def strings(mark: str, count: int = 900) -> dict[bytes, bytes]:
    return {b"person:%d" % index: encode_string(f"{mark}{index}".encode()) for index in range(count)}


@pytest.fixture
def node(tmp_path: Path, s3: S3, shards: list[ShardProcess]) -> Iterator[NodeUnderTest]:
    with node_under_test(tmp_path, s3, shards) as one:
        one.start()
        yield one


def left_on_disk(node: NodeUnderTest) -> list[str]:
    """What lies in staging, making and versions, as paths."""
    roots = [node.paths.staging, *(one.paths.making for one in node.shards), *(one.paths.versions for one in node.shards)]
    return [str(path) for path in lying_below(*roots)]


def test_a_version_goes_from_its_manifest_to_every_client(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    rows = strings("v")
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX)
    for goal, state in ((Goal.STAGED, State.STAGED), (Goal.READY, State.READY), (Goal.ACTIVE, State.ACTIVE)):
        head.want(person=(PREFIX, [built.wanted(goal)]))
        node.wake()
        found = node.until("person", V1, state)
        assert node.status().desired_epoch == head.desired.epoch
        if state is not State.ACTIVE:
            assert read_all(shards, rows) == dict.fromkeys(rows)
    assert (found.files_done, found.files_total, found.samples_checked) == (3, 3, len(built.manifest.samples))
    assert found.bytes_done == found.bytes_total == built.manifest.totals.bytes
    assert sum(one.keys for one in found.shards.values()) == len(rows)
    assert set(found.shards) == {"node-1-a", "node-1-b"}
    assert read_all(shards, rows) == rows
    assert not node.staged_files()
    assert lying_below(*(one.paths.making for one in shards)) == []


@pytest.mark.parametrize("kind", ["hash", "zset"])
def test_collections_answer_as_their_samples_say(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess], kind: str) -> None:
    rows = {
        b"person:%d" % index: encode_hash([(b"name", b"n%d" % index), (b"age", b"7")])
        if kind == "hash"
        else encode_zset([(b"a%d" % index, 0.1 * index), (b"b", -1.5)])
        for index in range(200)
    }
    built = build_version(s3.store, "person", V1, rows, prefix=PREFIX, kind=kind, samples_every=2)  # type: ignore[arg-type]  # one of two
    head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
    node.wake()
    assert node.until("person", V1, State.ACTIVE).samples_checked == 100
    assert read_all(shards, rows) == rows


def test_a_swap_the_way_back_and_the_removal(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    old, new = strings("old"), strings("new")
    first = build_version(s3.store, "person", V1, old, prefix=PREFIX)
    second = build_version(s3.store, "person", V2, new, prefix=PREFIX)
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    head.want(person=(PREFIX, [first.wanted(Goal.RETIRED), second.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until("person", V2, State.ACTIVE)
    node.until("person", V1, State.RETIRED)
    assert read_all(shards, new) == new
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE), second.wanted(Goal.RETIRED)]))
    node.wake()
    node.until("person", V1, State.ACTIVE)
    node.until("person", V2, State.RETIRED)
    assert read_all(shards, old) == old
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the second version to be gone", lambda status: status.find("person", V2) is None)
    node.until_true("its files to be gone", lambda _: not any(V2 in path for path in left_on_disk(node)))
    assert read_all(shards, old) == old


def test_a_version_that_nobody_wants_any_more_leaves_the_disk_clean(node: NodeUnderTest, head: Head, s3: S3) -> None:
    staged = build_version(s3.store, "person", V1, strings("a"), prefix=PREFIX)
    ready = build_version(s3.store, "plane", V1, {b"plane:1": encode_string(b"x")}, prefix="plane:")
    head.want(person=(PREFIX, [staged.wanted(Goal.STAGED)]), plane=("plane:", [ready.wanted(Goal.READY)]))
    node.wake()
    node.until("person", V1, State.STAGED)
    node.until("plane", V1, State.READY)
    head.want()
    node.wake()
    node.until_true("everything to be gone", lambda status: not status.datasets and not left_on_disk(node))


def test_a_shard_without_a_key_of_the_version_serves_it_all_the_same(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    rows = {b"{person}_1": encode_string(b"one"), b"{person}_2": encode_string(b"two")}
    built = build_version(s3.store, "person", V1, rows, prefix="{person}_")
    head.want(person=("{person}_", [built.wanted(Goal.ACTIVE)]))
    node.wake()
    found = node.until("person", V1, State.ACTIVE)
    assert sorted(one.keys for one in found.shards.values()) == [0, 2]
    assert read_all(shards, rows) == rows


def test_an_empty_node_catches_up(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    node.stop()
    rows = {name: strings(name) for name in ("a", "b", "c")}
    built = [build_version(s3.store, "person", one, rows[mark], prefix=PREFIX) for one, mark in ((V1, "a"), (V2, "b"), (V3, "c"))]
    head.want(person=(PREFIX, [built[0].wanted(Goal.RETIRED), built[1].wanted(Goal.RETIRED), built[2].wanted(Goal.ACTIVE)]))
    head.topology(topology_of(shards, [[one] for one in even_ranges(2)], epoch=3))
    node.start()
    node.until("person", V3, State.ACTIVE)
    assert node.status().topology_epoch == 3
    assert read_all(shards, rows["c"]) == rows["c"]


def bulk_line(shard: ShardProcess) -> str:
    """What INFO says of the dataset."""
    with RawClient(shard.port) as client:
        return next(line for line in client.call("INFO", "bulk").decode().splitlines() if line.startswith("dataset_person:"))


def test_a_shard_that_lags_behind_says_so(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    """With no version: no key is told absent, also after a restart of the shard. With the version before: that is what it serves."""
    old, new = strings("old"), strings("new")
    node.ask("PUT", "limits", {"bandwidth_bytes_s": 1})
    first = build_version(s3.store, "person", V1, old, prefix=PREFIX)
    head.want(person=(PREFIX, [first.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the shards to know", lambda _: refused_all(shards, old, b"LOADING"))
    assert bulk_line(shards[0]).endswith(f"expected={V1},lagging=1")
    shards[0].kill()
    shards[0].start()
    assert refused_all(shards, old, b"LOADING")
    node.ask("PUT", "limits", {"bandwidth_bytes_s": None})
    node.until("person", V1, State.ACTIVE)
    assert read_all(shards, old) == old
    assert bulk_line(shards[0]).endswith(f"expected={V1},lagging=0")
    node.ask("PUT", "limits", {"bandwidth_bytes_s": 1})
    second = build_version(s3.store, "person", V2, new, prefix=PREFIX)
    head.want(person=(PREFIX, [first.wanted(Goal.RETIRED), second.wanted(Goal.ACTIVE)]))
    node.wake()
    node.until_true("the lag to be told", lambda _: bulk_line(shards[1]).endswith(f"expected={V2},lagging=1"))
    assert read_all(shards, old) == old
    head.want()
    node.wake()
    node.until_true("nothing to be expected", lambda _: bulk_line(shards[1]).endswith("expected=,lagging=0"))


def test_no_reader_sees_an_error_while_a_first_version_is_activated(
    node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]
) -> None:
    tag = next(one for one in range(100) if key_slot(b"%d" % one) < SLOT_COUNT // 2)
    for dataset in ("person", "plane", "route"):
        key = f"{dataset}:{{{tag}}}".encode()
        built = build_version(s3.store, dataset, V1, {key: encode_string(b"there")}, prefix=f"{dataset}:")
        head.want(**{dataset: (f"{dataset}:", [built.wanted(Goal.READY)])})
        node.wake()
        node.until(dataset, V1, State.READY)
        head.want(**{dataset: (f"{dataset}:", [built.wanted(Goal.ACTIVE)])})
        node.wake()
        with RawClient(shards[0].port) as reader:
            while (reply := reader.call("GET", key)) == b"$-1\r\n":
                pass
            assert reply == b"$5\r\nthere\r\n"
        node.until(dataset, V1, State.ACTIVE)


def test_random_loads_end_with_the_last_content(node: NodeUnderTest, head: Head, s3: S3, shards: list[ShardProcess]) -> None:
    seed = 20_261_123
    choose = random.Random(seed)
    rows: dict[bytes, bytes] = {}
    kept: list[str] = []
    for day in range(1, 6):
        version = f"2026-12-{day:02d}"
        rows = strings(f"{day}-", choose.randrange(1, 400))
        built = build_version(s3.store, "person", version, rows, prefix=PREFIX)
        head.want(person=(PREFIX, [built.wanted(Goal.ACTIVE)]))
        node.wake()
        node.until("person", version, State.ACTIVE)
        assert read_all(shards, rows) == rows, seed
        kept = [version]
    node.until_true("older versions to be gone", lambda _: all(kept[0] in path or path.endswith("/person") for path in left_on_disk(node)))
    assert s3.store.get(manifest_key("person", kept[0])).data
