"""Taking away what nobody wants: version directories, staged files, leftovers of ingestion, registrations.

Rules:
- A version that a piece of work still touches is left until that work has ended.
- A shard closes a version before its directory goes; what a shard still serves stays until it serves something else.
- A shard that does not answer keeps everything: nothing of it is removed behind its back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import structlog

from ingest_sidecar.disk import published_versions, remove_leftover, remove_staged, remove_version, staged_versions, unpublished
from ingest_sidecar.version import Node
from pipeline.format.admin import AdminCommand, ShardStatus
from pipeline.format.desired import Desired

Key = tuple[str, str]
"""Dataset and version."""

_log = structlog.get_logger("ingest_sidecar")


async def sweep(node: Node, desired: Desired, shards: Mapping[str, ShardStatus], busy: AbstractSet[Key]) -> None:
    """Remove what `desired` does not name. `busy` are the versions that work still touches.

    Raises:
        ShardUnavailableError, NodeError: a shard went away, or refused.
    """
    wanted = {(name, one.version) for name, dataset in desired.datasets.items() for one in dataset.versions}
    for dataset, version in set(staged_versions(node.paths)) - wanted - busy:
        await asyncio.to_thread(remove_staged, node.paths, dataset, version)
    for name in node.clients:
        for leftover, dataset, version in list(unpublished(node.shard_paths(name))):
            if (dataset, version) not in busy:
                await asyncio.to_thread(remove_leftover, leftover)
    for name, shard in shards.items():
        await _sweep_published(node, name, shard, wanted | busy)
        for dataset, known in shard.datasets.items():
            if dataset not in desired.datasets and known.active is None:
                await node.clients[name].admin(AdminCommand.UNREGISTER, dataset)


async def _sweep_published(node: Node, name: str, shard: ShardStatus, kept: AbstractSet[Key]) -> None:
    paths = node.shard_paths(name)
    for dataset, version in set(published_versions(paths)) - kept:
        known = shard.datasets.get(dataset)
        if known is not None and known.active == version:
            continue  # it serves on until another version is active
        await node.clients[name].admin(AdminCommand.CLOSE, dataset, version)
        await asyncio.to_thread(remove_version, paths, dataset, version)
        _log.info("removed", dataset=dataset, version=version, shard=name)
