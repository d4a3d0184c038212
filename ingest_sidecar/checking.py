"""Looking at a published version again: what each directory says of itself, and its samples through the shard, pinned.

Rules:
- Nothing is changed: a version that was closed is opened for the look, and closed after it, unless it became active meanwhile.
- What is wrong with one shard is told beside what is right with the others.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

from ingest_sidecar.notes import published
from ingest_sidecar.plan import Slots
from ingest_sidecar.samples import check_samples
from ingest_sidecar.shard_client import ShardClient
from pipeline.format.admin import AdminCommand, ShardStatus, VersionIdentity
from pipeline.format.desired import DesiredVersion
from pipeline.format.errors import ChecksumMismatchError, RedkvError, ShardUnavailableError, UnknownVersionError, VersionActiveError
from pipeline.format.layout import ShardPaths
from pipeline.format.manifest import Manifest
from pipeline.load.status import ShardCheck, VersionCheck
from pipeline.store import ObjectStore


async def check_version(
    node: str,
    store: ObjectStore,
    clients: Mapping[str, ShardClient],
    slots: Mapping[str, Slots],
    shards: Mapping[str, ShardStatus],
    dataset: str,
    wanted: DesiredVersion,
) -> VersionCheck:
    """Look at one version on all shards of a node; `slots` are those that each holds, `shards` what they say of themselves.

    Raises:
        StoreError, FormatError, ChecksumMismatchError: its manifest can't be read, or is not the one that was loaded.
    """
    manifest = await asyncio.to_thread(_manifest, store, wanted)
    looks = (_look(node, manifest, clients[name], slots.get(name, ()), shards.get(name), wanted) for name in clients)
    return VersionCheck(node=node, dataset=dataset, version=wanted.version, shards=tuple(await asyncio.gather(*looks)))


async def _look(
    node: str, manifest: Manifest, client: ShardClient, slots: Slots, status: ShardStatus | None, wanted: DesiredVersion
) -> ShardCheck:
    name, dataset = client.shard.name, manifest.dataset
    known = status.datasets.get(dataset) if status else None
    active = known is not None and (known.active, known.active_build_id) == (wanted.version, wanted.build_id)
    identity: VersionIdentity | None = None
    try:
        if status is None:
            raise ShardUnavailableError(f"shard {name} of {node} does not answer", shard=name)
        identity = await asyncio.to_thread(published, ShardPaths(client.shard.data_dir), dataset, wanted.version)
        if identity is None:
            message = f"shard {name} of {node} has no directory of {dataset} {wanted.version}"
            raise UnknownVersionError(message, dataset=dataset, version=wanted.version, shard=name)
        samples = await _read(node, manifest, client, slots, opened=known is not None and wanted.version in known.opened)
    except RedkvError as failed:
        return _told(name, identity, active=active, samples=0, error=failed)
    return _told(name, identity, active=active, samples=samples, error=None)


async def _read(node: str, manifest: Manifest, client: ShardClient, slots: Slots, *, opened: bool) -> int:
    dataset, version = manifest.dataset, manifest.version
    if not opened:
        await client.admin(AdminCommand.OPEN, dataset, version)
    try:
        return await check_samples(manifest, client, slots, node)
    finally:
        if not opened:
            await _close(client, dataset, version)


async def _close(client: ShardClient, dataset: str, version: str) -> None:
    try:
        await client.admin(AdminCommand.CLOSE, dataset, version)
    except VersionActiveError:
        return  # it became active while we looked, and stays open


def _told(name: str, identity: VersionIdentity | None, *, active: bool, samples: int, error: RedkvError | None) -> ShardCheck:
    return ShardCheck(
        shard=name,
        build_id=identity.build_id if identity else None,
        manifest_sha256=identity.manifest_sha256 if identity else None,
        keys=identity.keys if identity else 0,
        entries=identity.entries if identity else 0,
        active=active,
        samples_checked=samples,
        error=error.to_json() if error else None,
    )


def _manifest(store: ObjectStore, wanted: DesiredVersion) -> Manifest:
    data = store.get(wanted.manifest_key).data
    found = hashlib.sha256(data).hexdigest()
    if found != wanted.manifest_sha256:
        message = f"{wanted.manifest_key} has SHA-256 {found}, the desired state says {wanted.manifest_sha256}: a manifest never changes"
        raise ChecksumMismatchError(message, object=wanted.manifest_key)
    return Manifest.from_json(data, wanted.manifest_key)
