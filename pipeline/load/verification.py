"""Whether a version may go before clients: pure comparisons of manifests and of what nodes report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pipeline.format.errors import CountMismatchError, ReplicatedSlotsError, ShrunkVersionError
from pipeline.format.manifest import Manifest
from pipeline.format.slots import key_slot, slot_set
from pipeline.format.topology import Topology
from pipeline.load.coverage import group, shards_elsewhere
from pipeline.load.status import ShardVersion, VersionStatus

SHRINK_MIN = 0.5  # an upstream job that lost half its rows is likelier than a table that did


def verify(manifest: Manifest, topology: Topology, nodes: Mapping[str, VersionStatus], absent: AbstractSet[str] = frozenset()) -> int:
    """Whether all primaries together hold what the manifest promises, and every replica what its primary holds; how many samples were
    read back, through primaries and replicas. Those of an `upsert` can't be read before its rows are among the live keys. A replica stands
    for a primary that is one of the `absent` shards. What a delta itself put and deleted counts unless a shard does not know.

    Raises:
        CountMismatchError: they do not.
    """
    groups = _groups(topology, absent)
    copies = _copies(groups)
    totals, whole = manifest.totals, manifest.in_all
    promises = {}
    if all(one.knows_changes for status in nodes.values() for name, one in status.shards.items() if name not in copies):
        promises["deletes"] = totals.deletes
        if manifest.bases:
            promises |= {"applied_keys": totals.keys, "applied_entries": totals.entries}
    if whole:
        promises |= {"keys": whole.keys, "entries": whole.entries}
    for what, promised in promises.items():
        _compare(manifest, what, promised, {name: _count(status, what, copies) for name, status in nodes.items()})
    if manifest.mode == "upsert":
        return 0
    samples = expected_samples(manifest, topology, absent)
    _compare(manifest, "samples", samples, {name: status.samples_checked for name, status in nodes.items()})
    _check_replicas(manifest, groups, {name: one for node in nodes.values() for name, one in node.shards.items()})
    return samples


def _compare(manifest: Manifest, what: str, promised: int, parts: Mapping[str, int]) -> None:
    found = sum(parts.values())
    if found != promised:
        told = ", ".join(f"{name} {part}" for name, part in parts.items())
        message = (
            f"{manifest.dataset} {manifest.version}: all nodes report {found} {what}, the manifest has {promised} ({told}): "
            f"the version is not activated; look whether the topology changed meanwhile, and load it again"
        )
        raise CountMismatchError(message, what=what, found=found, promised=promised, nodes=dict(parts))


def _check_replicas(manifest: Manifest, groups: Iterable[Sequence[str]], shards: Mapping[str, ShardVersion]) -> None:
    for first, *others in filter(None, groups):
        for name in others:
            copy, primary = shards.get(name), shards.get(first)
            if not _agree(copy, primary):
                message = (
                    f"{manifest.dataset} {manifest.version}: replica {name} holds {_shown(copy)}, its primary {first} "
                    f"{_shown(primary)}: the version is not activated; look whether the topology changed meanwhile, and load it again"
                )
                raise CountMismatchError(message, shard=name, primary=first)


def _agree(copy: ShardVersion | None, primary: ShardVersion | None) -> bool:
    if copy is None or primary is None:
        return False
    if copy.knows_changes and primary.knows_changes:
        return copy == primary
    return (copy.keys, copy.entries) == (primary.keys, primary.entries)


def expected_samples(manifest: Manifest, topology: Topology, absent: AbstractSet[str] = frozenset()) -> int:
    """How many samples are read back: each through every shard that holds its slot, and is not absent."""
    held = [slot_set(topology.held_by(shard.name)) for shard in topology.shards if shard.name not in absent]
    return sum(key_slot(one.key) in slots for one in manifest.samples for slots in held)


def _shown(version: ShardVersion | None) -> str:
    return "nothing" if version is None else f"{version.entries} entries of {version.keys} keys"


def check_size(manifest: Manifest, before: Manifest) -> None:
    """Whether a version is not suspiciously small: a delta with all that it lies on. What only nodes know is judged by `check_keys`.

    Raises:
        ShrunkVersionError: it holds less than SHRINK_MIN of the rows of the version before.
    """
    rows, old = manifest.rows_in_all, before.rows_in_all
    if rows is not None and old is not None and rows < SHRINK_MIN * old:
        message = (
            f"{manifest.dataset} {manifest.version} holds {rows} rows, the active version {before.version} holds {old}: look whether the "
            f"table is complete, and pass --allow-shrink if it is"
        )
        raise ShrunkVersionError(message, dataset=manifest.dataset, version=manifest.version, rows=rows, before=old)


def check_keys(manifest: Manifest, before: str, keys: int, old: int) -> None:
    """As `check_size`, by the keys that all nodes together hold of both versions.

    Raises:
        ShrunkVersionError: it holds less than SHRINK_MIN of those of the version before.
    """
    if keys < SHRINK_MIN * old:
        message = (
            f"{manifest.dataset} {manifest.version} comes to {keys} keys, the active version {before} holds {old}: look whether the "
            f"changes are meant, and pass --allow-shrink if they are"
        )
        raise ShrunkVersionError(message, dataset=manifest.dataset, version=manifest.version, keys=keys, before=old)


def keys_of(topology: Topology, nodes: Mapping[str, VersionStatus]) -> int:
    """The keys of a version that these nodes together hold, each counted once."""
    copies = _copies(_groups(topology, shards_elsewhere(topology, nodes)))
    return sum(_count(status, "keys", copies) for status in nodes.values())


def _groups(topology: Topology, absent: AbstractSet[str]) -> list[list[str]]:
    return [group(topology, shard.name, absent) for shard in topology.shards if shard.replica_of is None]


def _copies(groups: Iterable[Sequence[str]]) -> set[str]:
    """The shards that hold what another one holds."""
    return {name for _, *others in filter(None, groups) for name in others}


def check_unreplicated(dataset: str, topology: Topology) -> None:
    """Whether a dataset may be loaded in mode `upsert`.

    Raises:
        ReplicatedSlotsError: some shards have replicas.
    """
    copies = [f"{shard.name} of {shard.replica_of}" for shard in topology.shards if shard.replica_of is not None]
    if copies:
        message = (
            f"dataset {dataset} is loaded in mode upsert, but the cluster has replicas ({', '.join(copies)}), and live keys are not "
            f"replicated yet: take the replicas out of the topology, or load it in mode replace"
        )
        raise ReplicatedSlotsError(message, dataset=dataset, replicas=copies)


def _count(status: VersionStatus, what: str, copies: AbstractSet[str]) -> int:
    return sum(getattr(one, what) for name, one in status.shards.items() if name not in copies)
