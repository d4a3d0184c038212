"""What a verification tells of what nodes found: every difference, with node and shard."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.format.desired import Goal
from pipeline.format.errors import RedkvError, SampleMismatchError, SidecarUnavailableError
from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.load.checking import problems
from pipeline.load.status import ShardCheck, VersionCheck
from tests.support import examples

MANIFEST = examples.manifest()
DIGEST = examples.manifest_sha256()
WANTED = examples.desired().datasets["person"].versions[1]
TOPOLOGY = Topology(
    cluster="c",
    epoch=1,
    nodes=(
        Node(name="n1", sidecar_url="http://n1", shards=(Shard(name="p", host="h", port=1, slots=(even_ranges(1)[0],)),)),
        Node(name="n2", sidecar_url="http://n2", shards=(Shard(name="r", host="h", port=2, slots=(), replica_of="p"),)),
    ),
)


def shard(name: str, **more: Any) -> ShardCheck:
    fields = {"build_id": MANIFEST.build_id, "manifest_sha256": DIGEST, "keys": 2, "entries": 2, "active": True, "samples_checked": 2}
    return ShardCheck.model_validate({"shard": name, **fields, **more})


def found(primary: ShardCheck, replica: ShardCheck | RedkvError) -> list[str]:
    def told(node: str, one: ShardCheck | RedkvError) -> VersionCheck | RedkvError:
        return one if isinstance(one, RedkvError) else VersionCheck(node=node, dataset="person", version="2026-11-22", shards=(one,))

    return list(problems(MANIFEST, DIGEST, WANTED, TOPOLOGY, {"n1": told("n1", primary), "n2": told("n2", replica)}))


def test_nothing_is_told_of_copies_that_are_what_was_built() -> None:
    assert WANTED.goal is Goal.ACTIVE
    assert found(shard("p"), shard("r")) == []


@pytest.mark.parametrize(
    ("primary", "replica", "message"),
    [
        (shard("p", keys=1), shard("r", keys=1), "all primaries together hold 1 keys, the manifest has 2"),
        (shard("p"), shard("r", entries=1), "replica r holds 1 entries of 2 keys, its primary p 2 of 2"),
        (shard("p", build_id="other"), shard("r"), "p on n1 holds build other"),
        (shard("p", manifest_sha256="0"), shard("r"), "made by manifest 0"),
        (shard("p"), shard("r", active=False), "r on n2 holds it, but its clients read another version"),
        (shard("p", samples_checked=1), shard("r"), "3 samples were read, 4 were to be"),
        (shard("p"), shard("r", error=SampleMismatchError("key k answers otherwise").to_json()), "r on n2: key k answers otherwise"),
        (shard("p"), SidecarUnavailableError("the sidecar of n2 does not answer"), "n2: the sidecar of n2 does not answer"),
    ],
)
def test_every_difference_is_told_with_its_place(primary: ShardCheck, replica: ShardCheck | RedkvError, message: str) -> None:
    told = found(primary, replica)
    assert len(told) == 1
    assert message in told[0]
