"""The loop that brings this node to the desired state: level-triggered, all datasets at once.

Rules:
- Each turn compares what is wanted with what is, and starts what is missing; it never waits for a version's work.
- One version has one piece of work at a time. Its failure is its own: the others and the loop go on.
- A fatal failure stands until the version is withdrawn or built anew; a retryable one is repeated with backoff.
- What the desired state does not name goes (sweep.py), once the work on it has ended.
- One sidecar works on a node: it holds the node's lock, and so does an ingest process that outlives it for a moment.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

import structlog

from ingest_sidecar.disk import disk_failure, remove_unpublished, try_lock, write_atomically
from ingest_sidecar.documents import Documents
from ingest_sidecar.plan import Slots
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from ingest_sidecar.sweep import Key, sweep
from ingest_sidecar.version import Node, VersionOnNode
from pipeline.format.admin import AdminCommand, ShardStatus
from pipeline.format.desired import Goal
from pipeline.format.errors import IllegalTransitionError, IngestProcessError, NodeError, Outcome, RedkvError, ShardUnavailableError
from pipeline.format.layout import NodePaths
from pipeline.load.states import Event, State
from pipeline.load.status import NodeStatus
from pipeline.store import ObjectStore

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
RETIRE_LOOK_S = 0.1  # between two looks whether the successor is active
LOCK_LOOK_S = 0.1  # an ingest process ends within milliseconds of its sidecar, unless it stands in a system call


class Reconciler:
    """The loop of one node. `run` until cancelled; `wake` to look at the documents now; `status` at any time."""

    def __init__(self, settings: SidecarSettings, store: ObjectStore) -> None:
        self._settings, self._store = settings, store
        self._paths = NodePaths(settings.data_dir)
        self._documents = Documents(store, settings.cluster, self._paths)
        self._clients = {one.name: ShardClient(one) for one in settings.shards}
        self._versions: dict[Key, VersionOnNode] = {}
        self._work: dict[Key, asyncio.Task[None]] = {}
        self._shards: dict[str, ShardStatus] = {}
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
        lock = await self._locked()
        node = Node(
            settings=self._settings,
            store=self._store,
            paths=self._paths,
            clients=self._clients,
            downloads=ThreadPoolExecutor(self._settings.downloads_max, "download"),
            ingests=asyncio.Semaphore(self._settings.ingests_max),
            lock=lock,
        )
        try:
            for name in self._clients:
                await asyncio.to_thread(remove_unpublished, node.shard_paths(name))
            while True:
                self._woken.clear()
                await self._turn_guarded(node)
                try:
                    await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)
                except TimeoutError:
                    continue
        finally:
            for task in self._work.values():
                task.cancel()
            await asyncio.gather(*self._work.values(), return_exceptions=True)
            os.close(lock)

    async def _locked(self) -> int:
        """The node's lock, waited for: until then another sidecar, or what it left running, may write here."""
        while (lock := await asyncio.to_thread(try_lock, self._paths.lock)) is None:
            message = f"another sidecar, or its ingest process, works in {self._paths.root}: this one waits; stop one of them if it lasts"
            self._note_failure(NodeError(message, node=self._settings.node))
            await asyncio.sleep(LOCK_LOOK_S)
        self._error = None
        return lock

    async def _turn_guarded(self, node: Node) -> None:
        try:
            await self._turn(node)
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

    async def _turn(self, node: Node) -> None:
        stale: RedkvError | None = None
        try:
            await asyncio.to_thread(self._documents.refresh)
        except RedkvError as failed:
            stale = failed  # what was followed so far is worked towards all the same
        owned = self._owned()
        resting = self._versions.keys() - self._work.keys()  # only these are judged by what the shards say from here on
        self._shards = await self._ask_shards()
        if owned:
            await self._tell_topology(node)
            await self._forget_unwanted(node)
            self._start_work(node, owned, resting)
        if stale is not None:
            raise stale
        missing = [name for name in self._clients if name not in self._shards]
        if missing:
            raise ShardUnavailableError(f"shards {', '.join(missing)} of {self._settings.node} do not answer", shards=missing)

    def _owned(self) -> dict[str, Slots]:
        topology = self._documents.topology
        if topology is None:
            return {}
        slots = {shard.name: shard.slots for shard in topology.shards}
        return {name: slots.get(name, ()) for name in self._clients}

    async def _ask_shards(self) -> dict[str, ShardStatus]:
        async def ask(client: ShardClient) -> ShardStatus | None:
            try:
                return await client.status()
            except ShardUnavailableError:
                return None

        answers = await asyncio.gather(*map(ask, self._clients.values()))
        return {name: answer for name, answer in zip(self._clients, answers, strict=True) if answer is not None}

    async def _tell_topology(self, node: Node) -> None:
        """Every shard follows the topology that this node follows."""
        topology = self._documents.topology
        if topology is None:
            return
        for name, shard in self._shards.items():
            if shard.topology_epoch < topology.epoch:
                await asyncio.to_thread(write_atomically, node.shard_paths(name).topology, topology.to_json())
                await self._clients[name].admin(AdminCommand.TOPOLOGY)

    def _start_work(self, node: Node, owned: dict[str, Slots], resting: AbstractSet[Key]) -> None:
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
                    known = self._versions[key] = VersionOnNode(node, name, dataset.prefix, wanted)
                known.wanted = wanted
                if key not in self._work:
                    self._start(key, known, owned, judged=key in resting)

    def _start(self, key: Key, version: VersionOnNode, owned: dict[str, Slots], *, judged: bool) -> None:
        if version.progress.state is State.FAILED:
            return
        if judged and version.fell_back(self._shards, owned):
            if version.progress.state is State.ACTIVE:
                version.progress.apply(Event.RETIRE)
            version.progress.apply(Event.REMOVE)  # made and activated again, from what is there
        version.observe(owned, self._shards)
        if not is_due(version.progress.state, version.wanted.goal):
            return
        task = asyncio.create_task(self._bring(version), name=f"{key[0]} {key[1]}")
        self._work[key] = task
        task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        del self._work[key]
        self.wake()  # for what waited for its end: a removal, a build under the same id

    async def _bring(self, version: VersionOnNode) -> None:
        """Work on one version until it has reached its goal, which may move on meanwhile."""
        backoff_s = BACKOFF_S_MIN
        while is_due(version.progress.state, version.wanted.goal):
            try:
                await self._step(version)
                version.progress.error = None
                backoff_s = BACKOFF_S_MIN
            except Exception as failed:  # noqa: BLE001 -- one version's failure stays its own, whatever it is; noted and shown
                if not await self._failed(version, self._named(version, failed), backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    def _named(self, version: VersionOnNode, failed: Exception) -> RedkvError:
        what = f"{version.dataset} {version.wanted.version}, {version.progress.step},"
        match failed:
            case RedkvError():
                return failed
            case OSError():
                return disk_failure(failed, what)
            case _:
                self._log.error("unforeseen failure", exc_info=failed, dataset=version.dataset, version=version.wanted.version)
                return IngestProcessError(f"{what} met an unforeseen failure: {failed!r}; see the sidecar's log")

    async def _step(self, version: VersionOnNode) -> None:
        owned = self._owned()
        match version.progress.state:
            case State.ABSENT if version.wanted.goal is not Goal.RETIRED:
                await version.stage(owned)
            case State.STAGED:
                await version.ingest(owned)
            case State.READY | State.ACTIVE if version.wanted.goal is Goal.RETIRED:
                if not await version.retire(await self._ask_shards()):  # its successor is not active here yet
                    await asyncio.sleep(RETIRE_LOOK_S)
            case State.READY | State.RETIRED:
                await version.activate()
            case other:  # only work leaves these states, and it does not end within one
                raise IllegalTransitionError(f"{version.dataset} {version.wanted.version} is {other}, from where no work starts")

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
        """Ask the work on a version to end; it is known until it has."""
        if key in self._work:
            self._work[key].cancel()

    async def _forget_unwanted(self, node: Node) -> None:
        desired = self._documents.desired
        if desired is None:
            return
        for dataset, version in list(self._versions):
            wanted = desired.datasets.get(dataset)
            if wanted is None or wanted.find(version) is None:
                self._stop_work((dataset, version))
                del self._versions[dataset, version]
        await sweep(node, desired, self._shards, self._work.keys())


_ENOUGH = {
    Goal.STAGED: {State.STAGED, State.INGESTING, State.READY, State.ACTIVE, State.RETIRED},
    Goal.READY: {State.READY, State.ACTIVE, State.RETIRED},
    Goal.ACTIVE: {State.ACTIVE},
    Goal.RETIRED: {State.ABSENT, State.STAGING, State.STAGED, State.INGESTING, State.RETIRED},
}
"""The states that a goal is content with. A version to be retired that was never ready is left where it is."""


def is_due(state: State, goal: Goal) -> bool:
    """Whether a version in that state needs work to reach that goal."""
    return state not in _ENOUGH[goal]
