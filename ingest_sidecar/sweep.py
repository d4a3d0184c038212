"""Taking away what nobody wants: version directories, staged files, leftovers of ingestion, registrations.

Rules:
- A version that a piece of work still touches is left until that work has ended.
- A shard closes a version before its directory goes; what a shard still serves stays until it serves something else.
- What goes is taken out of sight first; its files are removed at a pace, over as many turns as that takes (deletes.py).
- A shard that does not answer keeps everything: nothing of it is removed behind its back.
- What can't be removed is told, and tried again in the next turn; the others go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import structlog

from ingest_sidecar.disk import (
    disk_failure,
    hidden_staged,
    hide_version,
    is_hidden,
    published_versions,
    remove_leftover,
    remove_staged,
    staged_versions,
    unpublished,
)
from ingest_sidecar.version import Node
from ingest_sidecar.work import Key
from pipeline.format.admin import AdminCommand, ShardStatus
from pipeline.format.desired import Desired
from pipeline.format.errors import RedkvError

Busy = Callable[[], AbstractSet[Key]]
"""The versions that work touches at the moment of the call."""

_log = structlog.get_logger("ingest_sidecar")


async def sweep(
    node: Node, desired: Desired, cancelled: AbstractSet[Key], shards: Mapping[str, ShardStatus], busy: Busy
) -> list[RedkvError]:
    """Remove what `desired` does not name, and what was cancelled here; what could not be removed."""
    failures: list[RedkvError] = []
    wanted = {(name, one.version) for name, dataset in desired.datasets.items() for one in dataset.versions} - cancelled
    for what, removal in _removals(node, desired, wanted, shards, busy):
        try:
            await removal
        except RedkvError as failed:
            failures.append(failed)
        except OSError as failed:
            failures.append(disk_failure(failed, f"removing {what}"))
    return failures


def _removals(
    node: Node, desired: Desired, wanted: AbstractSet[Key], shards: Mapping[str, ShardStatus], busy: Busy
) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    for dataset, version in set(staged_versions(node.paths)) - wanted - busy():
        yield f"the staged files of {dataset} {version}", asyncio.to_thread(remove_staged, node.paths, dataset, version)
    yield from _leftovers(node, busy)
    for name, shard in shards.items():
        for dataset, version in set(published_versions(node.shard_paths(name))) - wanted - busy():
            known = shard.datasets.get(dataset)
            if known is None or known.active != version:  # it serves on until another version is active
                yield f"{dataset} {version} of shard {name}", _remove_published(node, name, dataset, version)
        for dataset, known in shard.datasets.items():
            if dataset not in desired.datasets and known.active is None:
                yield f"the registration of {dataset}", _unregister(node, name, dataset)


def _leftovers(node: Node, busy: Busy) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    for hidden in hidden_staged(node.paths):
        yield str(hidden), _remove_paced(node, hidden)
    for name in node.clients:
        for leftover, dataset, version in list(unpublished(node.shard_paths(name))):
            if is_hidden(leftover):
                yield str(leftover), _remove_paced(node, leftover)
            elif (dataset, version) not in busy():
                yield str(leftover), asyncio.to_thread(remove_leftover, leftover)


async def _remove_published(node: Node, shard: str, dataset: str, version: str) -> None:
    await node.clients[shard].admin(AdminCommand.CLOSE, dataset, version)
    await asyncio.to_thread(hide_version, node.shard_paths(shard), dataset, version)
    _log.info("removed", dataset=dataset, version=version, shard=shard)


async def _remove_paced(node: Node, hidden: Path) -> None:
    await asyncio.to_thread(node.deletes.remove, hidden)


async def _unregister(node: Node, shard: str, dataset: str) -> None:
    await node.clients[shard].admin(AdminCommand.UNREGISTER, dataset)
