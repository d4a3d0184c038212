"""The topology: one owner per slot at most, names that are unique, ids as Redis Cluster's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pipeline.format.errors import FormatError
from pipeline.format.slots import SLOT_COUNT, even_ranges, key_slot
from pipeline.format.topology import Topology
from tests.support import examples


def document() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(examples.topology().to_json())
    return parsed


def parse(parsed: dict[str, Any]) -> Topology:
    return Topology.from_json(json.dumps(parsed).encode(), "topology")


def test_every_slot_has_its_owner() -> None:
    topology = examples.topology()
    assert topology.unowned() == 0
    for slot in (0, 2729, 2730, 8191, 8192, SLOT_COUNT - 1):
        owner = topology.owner_of(slot)
        assert owner is not None
        assert any(slot in one for one in owner.slots)
    person = topology.owner_of(key_slot(b"{person}_42"))
    assert person is not None
    assert person.name == "node-1-a"


def test_a_slot_may_have_no_owner() -> None:
    parsed = document()
    parsed["nodes"][0]["shards"][0]["slots"] = []
    topology = parse(parsed)
    assert topology.owner_of(0) is None
    assert topology.unowned() == 2730


def test_a_slot_has_one_owner_at_most() -> None:
    parsed = document()
    parsed["nodes"][2]["shards"][1]["slots"].append({"first": 5, "last": 5})
    with pytest.raises(FormatError, match="slot 5 is owned by both node-1-a and node-3-b"):
        parse(parsed)


def test_shard_names_are_unique_in_the_cluster() -> None:
    parsed = document()
    parsed["nodes"][1]["shards"][0]["name"] = "node-1-a"
    with pytest.raises(FormatError, match="two shards are named node-1-a"):
        parse(parsed)


def test_node_names_are_unique() -> None:
    parsed = document()
    parsed["nodes"][1]["name"] = "node-1"
    with pytest.raises(FormatError, match="two nodes have the same name"):
        parse(parsed)


def test_node_ids_look_like_redis_clusters_and_differ() -> None:
    ids = {shard.node_id for shard in examples.topology().shards}
    assert len(ids) == 6
    assert all(re.fullmatch(r"[0-9a-f]{40}", one) for one in ids)


def with_replica(**changes: Any) -> dict[str, Any]:
    """The example, and node-3-b as a replica of node-1-a unless `changes` say otherwise."""
    parsed = document()
    shard = parsed["nodes"][2]["shards"][1]
    shard.update({"slots": [], "replica_of": "node-1-a"} | changes)
    return parsed


def test_a_replica_holds_the_slots_of_its_primary_and_owns_none() -> None:
    topology = parse(with_replica())
    assert topology.held_by("node-3-b") == topology.held_by("node-1-a") == (even_ranges(6)[0],)
    assert topology.held_by("stranger") == ()
    assert [one.name for one in topology.replicas_of("node-1-a")] == ["node-3-b"]
    assert topology.replicas_of("node-3-b") == ()
    assert topology.unowned() == 2731
    owner = topology.owner_of(0)
    assert owner is not None
    assert owner.name == "node-1-a"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"slots": [{"first": 16383, "last": 16383}]}, "node-3-b is a replica of node-1-a, so it can't own slots itself"),
        ({"replica_of": "node-9-a"}, "node-3-b is a replica of node-9-a, which is no shard of this cluster"),
        ({"replica_of": "node-3-b"}, "node-3-b is a replica of itself"),
    ],
)
def test_a_replica_that_can_not_be_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(FormatError, match=what):
        parse(with_replica(**changes))


def test_replicas_have_no_replicas() -> None:
    parsed = with_replica()
    parsed["nodes"][1]["shards"][0].update({"slots": [], "replica_of": "node-3-b"})
    with pytest.raises(FormatError, match="node-2-a is a replica of node-3-b, which is a replica of node-1-a: name the primary"):
        parse(parsed)


def test_a_document_without_replicas_in_it_is_read_as_before() -> None:
    parsed = document()
    for node in parsed["nodes"]:
        for shard in node["shards"]:
            assert shard.pop("replica_of") is None
    assert parse(parsed) == examples.topology()
