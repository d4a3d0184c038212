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
from typing import Any

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.chain import Chain, Layer, base_of, chain_of
from ingest_sidecar.culprit import named_file, with_key
from ingest_sidecar.deadline import deadline_ms, floor
from ingest_sidecar.deletes import Deletes
from ingest_sidecar.disk import free_bytes, keep_only, remove_staged
from ingest_sidecar.download import download
from ingest_sidecar.ingest import run_ingest
from ingest_sidecar.job import IngestBase, IngestJob, IngestShard
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.notes import published, reuse, sources
from ingest_sidecar.plan import Plan, Slots, check_disk, covered, exact, still_missing
from ingest_sidecar.progress import Progress
from ingest_sidecar.samples import check_samples
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from ingest_sidecar.stage import Tools, staged_bytes
from pipeline.format.admin import AdminCommand, ShardStatus, VersionIdentity
from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.errors import (
    ChecksumMismatchError,
    FormatError,
    IngestProcessError,
    IntegrityError,
    NodeError,
)
from pipeline.format.layout import NodePaths, ShardPaths
from pipeline.format.manifest import BaseVersion, Manifest
from pipeline.load.bases import read_base
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
    deletes: Deletes
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
        self._bases: dict[str, Manifest] = {}  # of the versions that a delta lies on, as far as they had to be read
        self._broken: set[str] = set()  # shards that can't open their directory, whatever it says of itself
        self._trusts_disk = True  # until files that lie here turned out to be wrong
        self._trusts_bases = True  # until that may be so of a directory that a delta begins with
        self._planned_for: Mapping[str, Slots] = {}  # the slots that the step under way, or the last one, went by

    def observe(self, held: Mapping[str, Slots], shards: Mapping[str, ShardStatus]) -> None:
        """Find out where an absent version stands: published everywhere and active everywhere, or to be closed, or still to be made."""
        if self.progress.state is not State.ABSENT:
            return
        identities = self._identities(held)
        if identities is None:
            return
        made = (Event.STAGE, Event.STAGE_DONE, Event.INGEST, Event.INGEST_DONE)
        active = [self._is_served(shards[name]) for name in held if name in shards]
        if len(active) == len(held) and all(active):
            self._found(identities, (*made, Event.ACTIVATE))
        elif self.wanted.goal is Goal.RETIRED:
            self._found(identities, made)

    def _found(self, identities: dict[str, VersionIdentity], events: tuple[Event, ...]) -> None:
        for event in events:
            self.progress.apply(event)
        self.progress.hold(identities)
        self.progress.error = None  # whatever failed before, it is there
        self.progress.at("found on disk")

    def fell_back(self, shards: Mapping[str, ShardStatus], held: Mapping[str, Slots]) -> bool:
        """Whether it is not what it was: a directory is gone, or has other slots than its shard now owns, or a shard serves something else,
        or not what is on disk; or it was staged for other slots.
        """
        if self.progress.state is State.STAGED:
            return self.is_overtaken(held)
        if self.progress.state not in {State.READY, State.ACTIVE, State.RETIRED}:
            return False
        if self._identities(held) is None:
            return True
        return self.progress.state is State.ACTIVE and any(not self._is_served(shards[name]) for name in held if name in shards)

    def is_ready(self, shards: Mapping[str, ShardStatus], held: Mapping[str, Slots]) -> bool:
        """Whether it waits for its activation alone, for the slots that its shards own now; no step of it failed last."""
        return self.progress.state is State.READY and self.progress.error is None and not self.fell_back(shards, held)

    def is_overtaken(self, held: Mapping[str, Slots]) -> bool:
        """Whether what is being staged or ingested, or is staged, goes by other slots than the shards now own."""
        return self.progress.state in {State.STAGING, State.STAGED, State.INGESTING} and self._planned_for != held

    async def stage(self, held: Mapping[str, Slots]) -> None:
        """Bring all files of this node's slots to its disk, verified; nothing to fetch if every shard holds the version already. What lies
        in a published directory is linked, and what another topology asked for goes.
        """
        self.progress.apply(Event.STAGE)
        self._planned_for = held
        if lacking := self._lacking(held):
            chain = await self._chain(lacking)
            self.progress.plan(chain.files, chain.bytes)
            self.progress.at("looking at what is there")
            await to_its_end(self._take_what_is_there, chain)
            self.progress.at("checking free space")
            needed = sum(one.bytes_total - one.bytes_done for one in self._node.staging)
            for layer in chain.layers:
                there = await asyncio.to_thread(staged_bytes, layer.folder, layer.plan.files)
                needed += still_missing(layer.plan.files, there) + self._written_again(layer.plan)
            what = f"staging {self.dataset} {self.wanted.version}"
            check_disk(needed, free_bytes(self._node.paths.root), self._node.settings.node, what)
            self.progress.at("downloading")
            self._node.staging.add(self.progress)
            try:
                for layer in chain.layers:
                    await self._download(layer)
            finally:
                self._node.staging.remove(self.progress)
        self.progress.apply(Event.STAGE_DONE)
        self.progress.at("staged")

    async def ingest(self, held: Mapping[str, Slots]) -> None:
        """Make and publish the version directories, then read the samples through the shards."""
        self.progress.apply(Event.INGEST)
        self._planned_for = held
        lacking = self._lacking(held)
        trimmed = {name: slots for name, slots in held.items() if name not in lacking and self._identity(name, slots, exact) is None}
        if lacking or trimmed:
            chain = await self._chain(lacking)
            self.progress.at("waiting for an ingest process")
            async with self._node.ingests:
                self.progress.at("ingesting and checking")
                await self._make(self._job(chain, trimmed))
            self._broken -= lacking.keys()
            self._node.metrics.bytes.labels("ingest").inc(chain.bytes)
        self.progress.hold(self._identities(held) or {})
        self.progress.at("reading samples through the shards")
        self.progress.samples_checked = await self._check_samples(held)
        await to_its_end(remove_staged, self._node.paths, self.dataset, self.wanted.version)
        self.progress.apply(Event.INGEST_DONE)
        self.progress.at("ready")

    async def _make(self, job: IngestJob) -> None:
        total = sum(one.size for shard in job.shards for one in (*shard.all_files, *((shard.base,) if shard.base else ())))
        try:
            await run_ingest(job, self._node.lock, self._node.pace, lambda seen: self.progress.at(f"checked {seen} of {total} bytes"))
        except IntegrityError as broken:  # what was verified when it came is wrong now: nothing that lies here is taken for the next try
            self._trusts_disk = False
            self.progress.at("looking for the key that differs")
            named = await with_key(broken, job, self._node.store)
            await to_its_end(remove_staged, self._node.paths, self.dataset, self.wanted.version)
            if named_file(broken, job) is None and any(shard.base for shard in job.shards):  # no staged file: the next try needs no base
                self._trusts_bases = False
                message = f"{named.message}; {self.dataset} {self.wanted.version} is made again, of files from the store alone"
                raise IngestProcessError(message, **named.fields) from broken
            raise named from broken

    async def activate(self) -> None:
        """Let clients read it, on all shards at once."""
        self.progress.at("activating")
        self.progress.activated_ms.clear()
        await asyncio.gather(*map(self._activate, self._node.clients))
        self.progress.apply(Event.ACTIVATE)
        self.progress.at("active")

    async def _activate(self, shard: str) -> None:
        await self._all(AdminCommand.ACTIVATE, (shard,))
        self.progress.activated_ms[shard] = int(time.time() * 1000)

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

    def slowest_pace(self, fetch_bytes_s: float, now_ms: float) -> float:
        """How slow the work on it may go, for its spec's deadline; `fetch_bytes_s` is what downloads take at full speed."""
        one = self.progress
        if self._manifest is None or one.state not in {State.STAGING, State.STAGED, State.INGESTING}:
            return 0.0
        fetch_s = (one.bytes_total - one.bytes_done) / fetch_bytes_s
        return floor(deadline_ms(self._manifest.spec, self._manifest.built_at_ms), now_ms, fetch_s, one.bytes_total)

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

    def _identities(self, held: Mapping[str, Slots]) -> dict[str, VersionIdentity] | None:
        """What every shard's published directory says; None unless all are of this build and hold the held slots and no others."""
        found = {name: self._identity(name, slots, exact) for name, slots in held.items()}
        whole = {name: identity for name, identity in found.items() if identity is not None}
        return whole if len(whole) == len(held) else None

    def _lacking(self, held: Mapping[str, Slots]) -> dict[str, Slots]:
        """The shards whose directory must be made, with their slots. What the others hold, and may be serving, is not touched."""
        return {name: slots for name, slots in held.items() if self._identity(name, slots) is None}

    def _identity(self, shard: str, slots: Slots, fits: Callable[[Slots, Slots], bool] = covered) -> VersionIdentity | None:
        identity = published(self._node.shard_paths(shard), self.dataset, self.wanted.version)
        if identity is None or shard in self._broken or identity.build_id != self.wanted.build_id or not fits(slots, identity.slots):
            return None
        return identity

    def _take_what_is_there(self, chain: Chain) -> None:
        """Keep what is staged and needed, and link what directories have, of this version and of those that it lies on."""
        for layer in chain.layers:
            names = {one.name for one in layer.plan.files}
            keep_only(layer.folder, names)
            for shard in self._node.clients.keys() - self._broken if self._trusts_disk else ():
                paths = self._node.shard_paths(shard)
                for version, build_id in ((one.manifest.version, one.manifest.build_id) for one in chain.layers):
                    identity = published(paths, self.dataset, version)
                    if identity is not None and identity.build_id == build_id:
                        reuse(paths.version(self.dataset, version), build_id, names, layer.folder)

    def _written_again(self, planned: Plan) -> int:
        """Bytes that are written on this disk before as many can go."""
        return planned.rewritten_bytes

    def _folder(self, build_id: str) -> Path:
        return self._node.paths.staged_build(self.dataset, self.wanted.version, build_id)

    async def _chain(self, held: Mapping[str, Slots]) -> Chain:
        self.progress.at("reading the manifest")
        manifest = await self._read_manifest()
        trusted = held if self._trusts_bases else {}
        bases = {name: found for name, slots in trusted.items() if (found := self._base(manifest, name, slots))}
        return await asyncio.to_thread(chain_of, manifest, held, bases, self._folder, self._read_base)

    def _base(self, manifest: Manifest, shard: str, slots: Slots) -> tuple[int, IngestBase] | None:
        return base_of(self._node.shard_paths(shard), self.dataset, manifest.bases, slots)

    def _read_base(self, base: BaseVersion) -> Manifest:
        if base.version not in self._bases:
            self._bases[base.version] = read_base(self._node.store, self.dataset, self.wanted.version, base)
        return self._bases[base.version]

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

    async def _download(self, layer: Layer) -> None:
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
        await download(tools, layer.plan.files, layer.folder, node.downloads, self.progress.add_file)

    def _job(self, chain: Chain, trimmed: Mapping[str, Slots]) -> IngestJob:
        shards = []
        for name, (slots, _) in chain.layers[0].plan.shards.items():
            files, layers = chain.of(name)
            shards.append(self._shard_job(name, slots, files=files, base=chain.starts[name], layers=layers))
        for name, slots in trimmed.items():
            originals = sources(self._node.shard_paths(name).version(self.dataset, self.wanted.version))
            shards.append(self._shard_job(name, slots, trimmed=True, originals=originals))
        settings = self._node.settings
        aside = settings.nice > 0
        return IngestJob(self.dataset, self.wanted.version, self.wanted.build_id, settings.node, tuple(shards), aside=aside)

    def _shard_job(self, name: str, slots: Slots, **more: Any) -> IngestShard:
        identity = VersionIdentity(
            dataset=self.dataset,
            version=self.wanted.version,
            build_id=self.wanted.build_id,
            manifest_sha256=self.wanted.manifest_sha256,
            slots=slots,
            keys=0,
            entries=0,
        )
        said = identity.model_dump(mode="json", exclude=set(VersionIdentity.NEWER))
        if self._manifest is not None and self._manifest.bases:
            said["format_version"] = VersionIdentity.FORMAT_VERSION
        return IngestShard(name, self._node.clients[name].shard.data_dir.resolve(), slots, said, **more)

    async def _check_samples(self, held: Mapping[str, Slots]) -> int:
        await self.register()
        await asyncio.gather(*map(self._open, self._node.clients))
        manifest = await self._read_manifest()
        node = self._node
        checks = (check_samples(manifest, node.clients[name], slots, node.settings.node) for name, slots in held.items())
        return sum(await asyncio.gather(*checks))

    async def _open(self, shard: str) -> None:
        try:
            await self._node.clients[shard].admin(AdminCommand.OPEN, self.dataset, self.wanted.version)
        except NodeError as refused:
            if type(refused) is not NodeError:  # a named refusal, or no answer: the directory is not what is wrong
                raise
            self._broken.add(shard)
            message = f"shard {shard} can't open {self.dataset} {self.wanted.version} ({refused.message}): the directory is made again"
            raise IngestProcessError(message, dataset=self.dataset, version=self.wanted.version, shard=shard) from refused


async def to_its_end(work: Callable[..., None], *arguments: object) -> None:
    """Run something short in a thread; a cancellation waits for its end, so that nothing still runs when the next work begins."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
