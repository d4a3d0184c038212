"""One version on this node: the steps from absent to active, each of which can be repeated.

Rules:
- What is on disk and what the shards say is the truth; `Progress` only tells of it. `observe` finds out where a version stands.
- A step ends in a state of the transition table or in an error; the reconcile loop decides when it is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as ThreadEvent

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.disk import free_bytes, published, remove_staged
from ingest_sidecar.download import download
from ingest_sidecar.ingest import IngestFile, IngestJob, IngestShard, run_ingest
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.plan import Plan, Slots, check_disk, covered, plan, still_missing
from ingest_sidecar.progress import Progress
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from ingest_sidecar.stage import Tools, staged_bytes
from pipeline.format.admin import AdminCommand, ShardStatus, VersionIdentity
from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.errors import (
    ChecksumMismatchError,
    FormatError,
    IngestProcessError,
    NodeError,
    SampleMismatchError,
)
from pipeline.format.layout import NodePaths, ShardPaths
from pipeline.format.manifest import Manifest
from pipeline.format.slots import key_slot, slot_set
from pipeline.load.states import Event, State
from pipeline.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Node:
    """What all versions of a node share. `lock` is the descriptor of the node's lock; `staging` are the downloads under way."""

    settings: SidecarSettings
    store: ObjectStore
    paths: NodePaths
    clients: Mapping[str, ShardClient]
    downloads: ThreadPoolExecutor
    ingests: asyncio.Semaphore
    lock: int
    bucket: TokenBucket
    metrics: Metrics
    pace: Callable[[], float]
    staging: set[Progress] = field(default_factory=set)

    def shard_paths(self, name: str) -> ShardPaths:
        """The paths of one of its shards."""
        return ShardPaths(self.clients[name].shard.data_dir)


class VersionOnNode:
    """One wanted version of one dataset on this node."""

    def __init__(self, node: Node, dataset: str, prefix: str, wanted: DesiredVersion) -> None:
        self.dataset, self.prefix, self.wanted = dataset, prefix, wanted
        self.progress = Progress(wanted.version, wanted.build_id)
        self._node = node
        self._manifest: Manifest | None = None
        self._broken: set[str] = set()  # shards that can't open their directory, whatever it says of itself

    def observe(self, owned: Mapping[str, Slots], shards: Mapping[str, ShardStatus]) -> None:
        """Find out where an absent version stands: published everywhere and active everywhere, or to be closed, or still to be made."""
        if self.progress.state is not State.ABSENT:
            return
        identities = self._identities(owned)
        if identities is None:
            return
        made = (Event.STAGE, Event.STAGE_DONE, Event.INGEST, Event.INGEST_DONE)
        active = [self._is_served(shards[name]) for name in owned if name in shards]
        if len(active) == len(owned) and all(active):
            self._found(identities, (*made, Event.ACTIVATE))
        elif self.wanted.goal is Goal.RETIRED:
            self._found(identities, made)

    def _found(self, identities: dict[str, VersionIdentity], events: tuple[Event, ...]) -> None:
        for event in events:
            self.progress.apply(event)
        self.progress.hold(identities)
        self.progress.at("found on disk")

    def fell_back(self, shards: Mapping[str, ShardStatus], owned: Mapping[str, Slots]) -> bool:
        """Whether it is less than it was: a directory is gone, or lacks slots that a shard now owns, or a shard serves something else, or
        not what is on disk.
        """
        if self.progress.state not in {State.READY, State.ACTIVE, State.RETIRED}:
            return False
        if self._identities(owned) is None:
            return True
        return self.progress.state is State.ACTIVE and any(not self._is_served(shards[name]) for name in owned if name in shards)

    async def stage(self, owned: Mapping[str, Slots]) -> None:
        """Bring all files of this node's slots to its disk, verified; nothing to fetch if every shard holds the version already."""
        self.progress.apply(Event.STAGE)
        if lacking := self._lacking(owned):
            planned = await self._plan(lacking)
            folder = self._folder()
            self.progress.plan(len(planned.files), planned.bytes)
            self.progress.at("checking free space")
            there = await asyncio.to_thread(staged_bytes, folder, planned.files)
            others = sum(one.bytes_total - one.bytes_done for one in self._node.staging)
            what = f"staging {self.dataset} {self.wanted.version}"
            check_disk(still_missing(planned.files, there) + others, free_bytes(self._node.paths.root), self._node.settings.node, what)
            self.progress.at("downloading")
            self._node.staging.add(self.progress)
            try:
                await self._download(planned, folder)
            finally:
                self._node.staging.remove(self.progress)
        self.progress.apply(Event.STAGE_DONE)
        self.progress.at("staged")

    async def ingest(self, owned: Mapping[str, Slots]) -> None:
        """Make and publish the version directories, then read the samples through the shards."""
        self.progress.apply(Event.INGEST)
        if lacking := self._lacking(owned):
            planned = await self._plan(lacking)
            self.progress.at("waiting for an ingest process")
            async with self._node.ingests:
                self.progress.at("ingesting and checking")
                job = self._job(planned)
                total = sum(one.file.entries for shard in job.shards for one in shard.files)
                await run_ingest(job, self._node.lock, self._node.pace, lambda seen: self.progress.at(f"checked {seen} of {total} entries"))
            self._broken -= lacking.keys()
            self._node.metrics.bytes.labels("ingest").inc(planned.bytes)
        self.progress.hold(self._identities(owned) or {})
        self.progress.at("reading samples through the shards")
        self.progress.samples_checked = await self._check_samples(owned)
        await to_its_end(remove_staged, self._node.paths, self.dataset, self.wanted.version)
        self.progress.apply(Event.INGEST_DONE)
        self.progress.at("ready")

    async def activate(self) -> None:
        """Let clients read it, on all shards at once."""
        self.progress.at("activating")
        await self._all(AdminCommand.ACTIVATE, self._node.clients)
        self.progress.apply(Event.ACTIVATE)
        self.progress.at("active")

    async def retire(self, shards: Mapping[str, ShardStatus]) -> bool:
        """Keep it on disk, closed. Nothing is done, and False the answer, while one of `shards` still serves it."""
        if self.is_read(shards):
            return False
        await self._all(AdminCommand.CLOSE, self._node.clients)
        self.progress.apply(Event.RETIRE)
        self.progress.at("retired")
        return True

    def is_read(self, shards: Mapping[str, ShardStatus]) -> bool:
        """Whether clients of any shard read it."""
        return any(self._is_active(status) for status in shards.values())

    async def register(self) -> None:
        """Make sure that every shard knows the dataset's prefix."""
        await asyncio.gather(*(one.admin(AdminCommand.REGISTER, self.dataset, self.prefix) for one in self._node.clients.values()))

    async def _all(self, command: AdminCommand, shards: Iterable[str]) -> None:
        await asyncio.gather(*(self._node.clients[name].admin(command, self.dataset, self.wanted.version) for name in shards))

    def _is_served(self, shard: ShardStatus) -> bool:
        """Whether clients read it there, and from the directory that is on disk."""
        known = shard.datasets.get(self.dataset)
        return known is not None and self._is_active(shard) and self.wanted.version in known.opened and known.current

    def _is_active(self, shard: ShardStatus) -> bool:
        known = shard.datasets.get(self.dataset)
        return known is not None and (known.active, known.active_build_id) == (self.wanted.version, self.wanted.build_id)

    def _identities(self, owned: Mapping[str, Slots]) -> dict[str, VersionIdentity] | None:
        """What every shard's published directory says; None unless all are of this build and hold all owned slots."""
        found = {name: self._identity(name, slots) for name, slots in owned.items()}
        whole = {name: identity for name, identity in found.items() if identity is not None}
        return whole if len(whole) == len(owned) else None

    def _lacking(self, owned: Mapping[str, Slots]) -> dict[str, Slots]:
        """The shards whose directory must be made, with their slots. What the others hold, and may be serving, is not touched."""
        return {name: slots for name, slots in owned.items() if self._identity(name, slots) is None}

    def _identity(self, shard: str, slots: Slots) -> VersionIdentity | None:
        identity = published(self._node.shard_paths(shard), self.dataset, self.wanted.version)
        if identity is None or shard in self._broken or identity.build_id != self.wanted.build_id or not covered(slots, identity.slots):
            return None
        return identity

    def _folder(self) -> Path:
        return self._node.paths.staged_build(self.dataset, self.wanted.version, self.wanted.build_id)

    async def _plan(self, owned: Mapping[str, Slots]) -> Plan:
        self.progress.at("reading the manifest")
        return plan(await self._read_manifest(), owned)

    async def _read_manifest(self) -> Manifest:
        if self._manifest is None:
            key = self.wanted.manifest_key
            data = (await asyncio.to_thread(self._node.store.get, key)).data
            found = hashlib.sha256(data).hexdigest()
            if found != self.wanted.manifest_sha256:
                message = f"{key} has SHA-256 {found}, the desired state says {self.wanted.manifest_sha256}: a manifest never changes"
                raise ChecksumMismatchError(message, object=key, node=self._node.settings.node)
            manifest = Manifest.from_json(data, key)
            if (manifest.dataset, manifest.version, manifest.build_id) != (self.dataset, self.wanted.version, self.wanted.build_id):
                raise FormatError(f"{key} is the manifest of {manifest.dataset} {manifest.version}, build {manifest.build_id}", object=key)
            self._manifest = manifest
        return self._manifest

    async def _download(self, planned: Plan, folder: Path) -> None:
        node, moved = self._node, self._node.metrics.bytes.labels("stage")

        def count(staged: int) -> None:
            self.progress.add_bytes(staged)
            moved.inc(max(0, staged))

        tools = Tools(
            store=node.store,
            bucket=node.bucket,
            node=node.settings.node,
            count=count,
            retried=lambda failed: node.metrics.retried("stage", failed),
            stopped=ThreadEvent(),
        )
        await download(tools, planned.files, folder, node.downloads, self.progress.add_file)

    def _job(self, planned: Plan) -> IngestJob:
        folder = self._folder()
        by_name = {one.name: IngestFile(path=folder / one.name, file=one.file) for one in planned.files}
        shards = tuple(
            IngestShard(
                name=name,
                data_dir=self._node.clients[name].shard.data_dir.resolve(),
                slots=slots,
                files=tuple(by_name[file] for file in files),
            )
            for name, (slots, files) in planned.shards.items()
        )
        return IngestJob(
            dataset=self.dataset,
            version=self.wanted.version,
            build_id=self.wanted.build_id,
            manifest_sha256=self.wanted.manifest_sha256,
            nice=self._node.settings.nice,
            shards=shards,
        )

    async def _check_samples(self, owned: Mapping[str, Slots]) -> int:
        await self.register()
        await asyncio.gather(*map(self._open, self._node.clients))
        manifest = await self._read_manifest()
        return sum(await asyncio.gather(*(self._check_shard(manifest, name, slots) for name, slots in owned.items())))

    async def _open(self, shard: str) -> None:
        try:
            await self._node.clients[shard].admin(AdminCommand.OPEN, self.dataset, self.wanted.version)
        except NodeError as refused:
            if type(refused) is not NodeError:  # a named refusal, or no answer: the directory is not what is wrong
                raise
            self._broken.add(shard)
            message = f"shard {shard} can't open {self.dataset} {self.wanted.version} ({refused.message}): the directory is made again"
            raise IngestProcessError(message, dataset=self.dataset, version=self.wanted.version, shard=shard) from refused

    async def _check_shard(self, manifest: Manifest, shard: str, slots: Slots) -> int:
        mine = slot_set(slots)
        samples = [one for one in manifest.samples if key_slot(one.key) in mine]
        async with self._node.clients[shard].pinned(self.dataset, self.wanted.version) as reader:
            for one in samples:
                reply = await reader.reply(manifest.type, one.key)
                expired = one.expires_at_ms is not None and one.expires_at_ms <= time.time() * 1000  # the shard reads the same clock
                if not expired and hashlib.sha256(reply).hexdigest() != one.reply_sha256:
                    key, node = one.key.decode(errors="backslashreplace"), self._node.settings.node
                    message = (
                        f"{self.dataset} {self.wanted.version} on {node}, shard {shard}: key {key} answers {reply[:80]!r}, which is not "
                        f"what was built; the version is not activated"
                    )
                    raise SampleMismatchError(message, dataset=self.dataset, version=self.wanted.version, node=node, shard=shard, key=key)
        return len(samples)


async def to_its_end(work: Callable[..., None], *arguments: object) -> None:
    """Run something short in a thread; a cancellation waits for its end, so that nothing still runs when the next work begins."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
