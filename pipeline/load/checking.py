"""Verifying a version that nodes hold: every shard's counts, build and samples, read again, against the manifest in the store.

Rules:
- Every node looks for itself, through its shards, with the version pinned; here their words are added up.
- All that is wrong is told, not only the first of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.errors import ObjectMissingError, RedkvError, UsageError
from pipeline.format.manifest import Manifest
from pipeline.format.topology import Topology
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.load.status import ShardCheck, VersionCheck
from pipeline.load.verification import expected_samples
from pipeline.load.wayback import dataset_of


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a verification found: `problems` in sentences, none if all is as it was built. Sums are over primaries, samples over all."""

    dataset: str
    version: str
    build_id: str
    manifest_sha256: str
    keys: int
    entries: int
    samples_checked: int
    nodes: Mapping[str, tuple[ShardCheck, ...]]
    problems: tuple[str, ...]


def check_version(documents: ClusterDocuments, nodes: Nodes, dataset: str, version: str | None) -> CheckReport:
    """Verify a version, by default the active one.

    Raises:
        UsageError: no such dataset or version on the nodes, or an `upsert`, whose rows are clients' by now.
        StoreError, FormatError: its manifest can't be read.
    """
    wanted = _wanted(documents, dataset, version)
    stored = documents.manifest(dataset, wanted.version)
    if stored is None:
        raise ObjectMissingError(f"{wanted.manifest_key} is not in the store: there is nothing to compare with", object=wanted.manifest_key)
    manifest, digest = stored
    answers = nodes.check(dataset, wanted.version)
    told = {name: one.shards for name, one in answers.items() if isinstance(one, VersionCheck)}
    shards = {one.shard: one for node in told.values() for one in node}
    primaries = [one for name, one in shards.items() if not _is_replica(nodes.topology, name)]
    return CheckReport(
        dataset=dataset,
        version=wanted.version,
        build_id=manifest.build_id,
        manifest_sha256=digest,
        keys=sum(one.keys for one in primaries),
        entries=sum(one.entries for one in primaries),
        samples_checked=sum(one.samples_checked for one in shards.values()),
        nodes=told,
        problems=tuple(problems(manifest, digest, wanted, nodes.topology, answers)),
    )


def _wanted(documents: ClusterDocuments, dataset: str, version: str | None) -> DesiredVersion:
    current = dataset_of(documents.desired(), dataset)
    if current.mode == "upsert":
        raise UsageError(f"{dataset} is loaded in mode upsert: its rows are live keys, which clients change", dataset=dataset)
    wanted = current.find(version) if version else current.active
    if wanted is None:
        held = ", ".join(one.version for one in current.versions)
        what = f"{dataset} {version} is not on the nodes" if version else f"clients read no version of {dataset} yet"
        raise UsageError(f"{what}: they hold {held}", dataset=dataset, version=version)
    return wanted


def problems(
    manifest: Manifest, digest: str, wanted: DesiredVersion, topology: Topology, answers: Mapping[str, VersionCheck | RedkvError]
) -> Iterator[str]:
    """Everything that is not as it was built, in sentences."""
    shards: dict[str, ShardCheck] = {}
    for node, answer in answers.items():
        if isinstance(answer, RedkvError):
            yield f"{node}: {answer}"
            continue
        for one in answer.shards:
            shards[one.shard] = one
            yield from _of_shard(manifest, digest, wanted, node, one)
    whole = len(shards) == len(topology.shards) and not any(one.error for one in shards.values())
    if not whole:
        return  # sums that lack a shard say nothing
    in_all = manifest.in_all  # a delta on a table of changes does not say: there it is replicas and samples that tell
    for what, promised in (("keys", in_all.keys), ("entries", in_all.entries)) if in_all else ():
        found = sum(getattr(one, what) for name, one in shards.items() if not _is_replica(topology, name))
        if found != promised:
            yield f"all primaries together hold {found} {what}, the manifest has {promised}"
    for shard in topology.shards:
        copy, primary = shards.get(shard.name), shards.get(shard.replica_of or shard.name)
        if copy and primary and (copy.keys, copy.entries) != (primary.keys, primary.entries):
            held = f"{primary.entries} of {primary.keys}"
            yield f"replica {shard.name} holds {copy.entries} entries of {copy.keys} keys, its primary {primary.shard} {held}"
    read, samples = sum(one.samples_checked for one in shards.values()), expected_samples(manifest, topology)
    if read != samples:
        yield f"{read} samples were read, {samples} were to be: look whether the topology changed meanwhile"


def _of_shard(manifest: Manifest, digest: str, wanted: DesiredVersion, node: str, one: ShardCheck) -> Iterator[str]:
    if one.error:
        yield f"{one.shard} on {node}: {one.error['message']}"
    elif one.build_id != manifest.build_id or one.manifest_sha256 != digest:
        yield f"{one.shard} on {node} holds build {one.build_id}, made by manifest {one.manifest_sha256}: the store has {manifest.build_id}"
    elif wanted.goal is Goal.ACTIVE and not one.active:
        yield f"{one.shard} on {node} holds it, but its clients read another version"


def _is_replica(topology: Topology, name: str) -> bool:
    shard = topology.find(name)
    return shard is not None and shard.replica_of is not None
