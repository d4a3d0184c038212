"""The loop that brings this node to the desired state: level-triggered, all datasets at once.

Rules:
- Each turn compares what is wanted with what is, and starts what is missing; it never waits for a version's work.
- One version has one piece of work at a time. Its failure is its own: the others and the loop go on.
- A fatal failure stands until the version is withdrawn or built anew; a retryable one is repeated with backoff.
- What the desired state does not name goes; what a shard still serves stays until it serves something else.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from ingest_sidecar.disk import published_versions, remove_staged, remove_unpublished, remove_version, staged_versions, write_atomically
from ingest_sidecar.documents import Documents
from ingest_sidecar.plan import Slots
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from ingest_sidecar.version import Node, VersionOnNode
from pipeline.format.admin import AdminCommand, ShardStatus
from pipeline.format.desired import Goal
from pipeline.format.errors import IngestProcessError, Outcome, RedkvError, ShardUnavailableError
from pipeline.format.layout import NodePaths
from pipeline.load.states import Event, State
from pipeline.load.status import NodeStatus
from pipeline.store import ObjectStore

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0

Key = tuple[str, str]
"""Dataset and version."""


class Reconciler:
    """The loop of one node. `run` until cancelled; `wake` to look at the documents now; `status` at any time."""

    def __init__(self, settings: SidecarSettings, store: ObjectStore) -> None:
        paths = NodePaths(settings.data_dir)
        self._settings = settings
        self._documents = Documents(store, settings.cluster, paths)
        self._node = Node(
            settings=settings,
            store=store,
            paths=paths,
            clients={one.name: ShardClient(one) for one in settings.shards},
            downloads=asyncio.Semaphore(settings.downloads_max),
            ingests=asyncio.Semaphore(settings.ingests_max),
        )
        self._versions: dict[Key, VersionOnNode] = {}
        self._work: dict[Key, asyncio.Task[None]] = {}
        self._shards: dict[str, ShardStatus] = {}
        self._told_topology: dict[str, int] = {}
        self._error: RedkvError | None = None
        self._woken = asyncio.Event()
        self._log = structlog.get_logger("ingest_sidecar")

    def wake(self) -> None:
        """Look at the documents now."""
        self._woken.set()

    def status(self) -> NodeStatus:
        """What this node holds and does."""
        datasets: dict[str, list[VersionOnNode]] = {}
        for (dataset, _), one in sorted(self._versions.items()):
            datasets.setdefault(dataset, []).append(one)
        return NodeStatus(
            node=self._settings.node,
            desired_epoch=self._documents.desired.epoch if self._documents.desired else 0,
            topology_epoch=self._documents.topology.epoch if self._documents.topology else 0,
            datasets={name: tuple(one.progress.status() for one in versions) for name, versions in datasets.items()},
            error=self._error.to_json() if self._error else None,
        )

    async def run(self) -> None:
        """Reconcile until cancelled."""
        for client in self._node.clients.values():
            await asyncio.to_thread(remove_unpublished, self._node.shard_paths(client.shard.name))
        try:
            while True:
                self._woken.clear()
                await self._turn_guarded()
                try:
                    await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)
                except TimeoutError:
                    continue
        finally:
            for task in self._work.values():
                task.cancel()
            await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _turn_guarded(self) -> None:
        try:
            await self._turn()
            self._error = None
        except RedkvError as failed:
            self._note_failure(failed)
        except Exception as unforeseen:  # noqa: BLE001 -- the loop must live; what happened is logged whole and shown in the status
            self._log.exception("turn failed")
            self._note_failure(RedkvError(f"the sidecar of {self._settings.node} met an unforeseen failure: {unforeseen!r}; see its log"))

    def _note_failure(self, failed: RedkvError) -> None:
        if self._error is None or self._error.message != failed.message:
            self._log.error("turn failed", **failed.to_json())
        self._error = failed

    async def _turn(self) -> None:
        stale: RedkvError | None = None
        try:
            await asyncio.to_thread(self._documents.refresh)
        except RedkvError as failed:
            stale = failed  # what was followed so far is worked towards all the same
        owned = self._owned()
        self._shards = await self._ask_shards()
        if owned:
            await self._tell_topology()
            await self._forget_unwanted()
            self._start_work(owned)
        if stale is not None:
            raise stale
        missing = [name for name in self._node.clients if name not in self._shards]
        if missing:
            raise ShardUnavailableError(f"shards {', '.join(missing)} of {self._settings.node} do not answer", shards=missing)

    def _owned(self) -> dict[str, Slots]:
        topology = self._documents.topology
        if topology is None:
            return {}
        slots = {shard.name: shard.slots for shard in topology.shards}
        return {name: slots.get(name, ()) for name in self._node.clients}

    async def _ask_shards(self) -> dict[str, ShardStatus]:
        async def ask(client: ShardClient) -> ShardStatus | None:
            try:
                return await client.status()
            except ShardUnavailableError:
                return None

        answers = await asyncio.gather(*map(ask, self._node.clients.values()))
        return {name: answer for name, answer in zip(self._node.clients, answers, strict=True) if answer is not None}

    async def _tell_topology(self) -> None:
        """Every shard follows the topology that this node follows."""
        topology = self._documents.topology
        if topology is None:
            return
        for name, shard in self._shards.items():
            if shard.topology_epoch < topology.epoch:
                await asyncio.to_thread(write_atomically, self._node.shard_paths(name).topology, topology.to_json())
                await self._node.clients[name].admin(AdminCommand.TOPOLOGY)

    def _start_work(self, owned: dict[str, Slots]) -> None:
        desired = self._documents.desired
        if desired is None:
            return
        for name, dataset in desired.datasets.items():
            for wanted in dataset.versions:
                key = (name, wanted.version)
                known = self._versions.get(key)
                if known is not None and known.wanted.build_id != wanted.build_id:
                    self._stop_work(key)
                    known = None
                if known is None:
                    known = self._versions[key] = VersionOnNode(self._node, name, dataset.prefix, wanted)
                    known.observe(owned, self._shards)
                known.wanted = wanted
                if key not in self._work:
                    self._start(key, known, owned)

    def _start(self, key: Key, version: VersionOnNode, owned: dict[str, Slots]) -> None:
        if version.progress.state is State.FAILED:
            return
        if version.fell_back(self._shards, owned):
            version.progress.apply(Event.RETIRE)  # a shard lost it: made and activated again from what is there
            version.progress.apply(Event.REMOVE)
        if not _is_due(version):
            return
        task = asyncio.create_task(self._bring(version), name=f"{key[0]} {key[1]}")
        self._work[key] = task
        task.add_done_callback(lambda _: self._work.pop(key, None))

    async def _bring(self, version: VersionOnNode) -> None:
        """Work on one version until it has reached its goal, which may move on meanwhile."""
        backoff_s = BACKOFF_S_MIN
        while _is_due(version):
            try:
                await self._step(version)
                version.progress.error = None
                backoff_s = BACKOFF_S_MIN
            except RedkvError as failed:
                if not await self._failed(version, failed, backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            except Exception as unforeseen:  # noqa: BLE001 -- one version's failure stays its own; logged whole and shown
                self._log.exception("step failed", dataset=version.dataset, version=version.wanted.version)
                failure = IngestProcessError(f"{version.progress.step} met an unforeseen failure: {unforeseen!r}; see the sidecar's log")
                if not await self._failed(version, failure, backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _step(self, version: VersionOnNode) -> None:
        owned = self._owned()
        match version.progress.state:
            case State.ABSENT if version.wanted.goal is not Goal.RETIRED:
                await version.stage(owned)
            case State.STAGED:
                await version.ingest(owned)
            case State.READY if version.wanted.goal is Goal.RETIRED:
                await version.retire(self._shards)
            case State.READY | State.RETIRED:
                await version.activate()
            case State.ACTIVE:
                self._shards = await self._ask_shards()
                await version.retire(self._shards)
                if version.progress.state is State.ACTIVE:  # clients still read it: its successor is not active here yet
                    await asyncio.sleep(BACKOFF_S_MIN)

    async def _failed(self, version: VersionOnNode, failed: RedkvError, backoff_s: float) -> bool:
        """Note a failure; True if the step is to be repeated, after a pause."""
        self._log.error("step failed", dataset=version.dataset, version=version.wanted.version, **failed.to_json())
        version.progress.error = failed
        version.progress.apply(Event.FAIL)
        if failed.outcome is Outcome.FATAL:
            return False
        await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
        version.progress.apply(Event.RETRY)
        return True

    def _stop_work(self, key: Key) -> None:
        task = self._work.pop(key, None)
        if task is not None:
            task.cancel()

    async def _forget_unwanted(self) -> None:
        desired = self._documents.desired
        if desired is None:
            return
        wanted = {(name, one.version) for name, dataset in desired.datasets.items() for one in dataset.versions}
        for key in [key for key in self._versions if key not in wanted]:
            task = self._work.get(key)
            self._stop_work(key)
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
            del self._versions[key]
        await self._sweep(wanted)
        for name, shard in self._shards.items():
            for dataset, known in shard.datasets.items():
                if dataset not in desired.datasets and known.active is None:
                    await self._node.clients[name].admin(AdminCommand.UNREGISTER, dataset)

    async def _sweep(self, wanted: set[Key]) -> None:
        """Remove from the disk what nobody wants and nobody serves."""
        for dataset, version in set(staged_versions(self._node.paths)) - wanted:
            await asyncio.to_thread(remove_staged, self._node.paths, dataset, version)
        for name, shard in self._shards.items():
            paths = self._node.shard_paths(name)
            for dataset, version in set(published_versions(paths)) - wanted:
                known = shard.datasets.get(dataset)
                if known is not None and known.active == version:
                    continue  # it serves on until another version is active
                await self._node.clients[name].admin(AdminCommand.CLOSE, dataset, version)
                await asyncio.to_thread(remove_version, paths, dataset, version)
                self._log.info("removed", dataset=dataset, version=version, shard=name)


_ENOUGH = {
    Goal.STAGED: {State.STAGED, State.INGESTING, State.READY, State.ACTIVE, State.RETIRED},
    Goal.READY: {State.READY, State.ACTIVE, State.RETIRED},
    Goal.ACTIVE: {State.ACTIVE},
    Goal.RETIRED: {State.ABSENT, State.STAGING, State.STAGED, State.INGESTING, State.RETIRED},
}
"""The states that a goal is content with. A version to be retired that was never ready is left where it is."""


def _is_due(version: VersionOnNode) -> bool:
    return version.progress.state not in _ENOUGH[version.wanted.goal]
