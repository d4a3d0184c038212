"""The loop that brings this node to the desired state: level-triggered, all datasets at once.

Rules:
- Each turn compares what is wanted with what is, and starts what is missing (work.py); it never waits for a version's work.
- Work starts first, what nobody wants goes last (sweep.py), and each item's failure is its own: it is told in the status, the turn goes on.
- One sidecar works on a node: it holds the node's lock, and so does an ingest process that outlives it for a moment.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

import structlog

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.checking import check_version
from ingest_sidecar.deletes import Deletes
from ingest_sidecar.disk import disk_failure, remove_unpublished, try_lock, write_atomically
from ingest_sidecar.documents import Documents, Hold
from ingest_sidecar.failures import TurnFailures
from ingest_sidecar.governor import Governor
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.plan import Slots
from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.shard_client import ShardClient, tell_expected
from ingest_sidecar.sweep import sweep
from ingest_sidecar.upsert import version_on_node
from ingest_sidecar.version import Node, VersionOnNode
from ingest_sidecar.work import Following, Key, Work
from pipeline.format.admin import AdminCommand, ShardStatus
from pipeline.format.desired import DesiredDataset, Goal
from pipeline.format.errors import NodeError, RedkvError, ShardUnavailableError, UnknownVersionError, VersionActiveError
from pipeline.format.layout import NodePaths
from pipeline.load.states import Event, State
from pipeline.load.status import Limits, NodeStatus, VersionCheck
from pipeline.store import ObjectStore

TURN_S_MAX = 300.0  # a turn asks the store and the shards, each with deadlines of its own: this is beyond all of them
LOCK_LOOK_S = 0.1  # an ingest process ends within milliseconds of its sidecar, unless it stands in a system call


class Reconciler:
    """The loop of one node. `run` until cancelled; `wake` to look at the documents now; `status` at any time."""

    def __init__(self, settings: SidecarSettings, store: ObjectStore) -> None:
        self._settings, self._store = settings, store
        self._paths = NodePaths(settings.data_dir)
        self._documents = Documents(store, settings.cluster, self._paths)
        self._clients = {one.name: ShardClient(one) for one in settings.shards}
        self._versions: dict[Key, VersionOnNode] = {}
        self._woken = asyncio.Event()
        self._bucket = TokenBucket(settings.bandwidth_bytes_s)
        self._metrics = Metrics()
        self._governor = Governor(settings, self._clients, self._bucket, self._metrics, self._slowest_pace)
        self._work = Work(self._following, self._ask_shards, self._woken.set, self._metrics)
        self._turned_at = time.monotonic()
        self._locks_node = False
        self._shards: dict[str, ShardStatus] = {}
        self._topology_epoch = 0  # whose slots all versions go by, but those that work is under way for
        self._failures = TurnFailures()
        self._asked = False  # somebody wants to see what failed tried again
        self._log = structlog.get_logger("ingest_sidecar")

    def wake(self) -> None:
        """Look at the documents now, and try again what failed."""
        self._asked = True
        self._woken.set()

    def status(self) -> NodeStatus:
        """What this node holds and does."""
        datasets: dict[str, list[VersionOnNode]] = {}
        for (dataset, _), one in sorted(self._versions.items()):
            datasets.setdefault(dataset, []).append(one)
        return NodeStatus(
            node=self._settings.node,
            desired_epoch=self._documents.desired.epoch if self._documents.desired else 0,
            topology_epoch=self._topology_epoch,
            datasets={name: tuple(one.progress.status() for one in versions) for name, versions in datasets.items()},
            error=self._failures.shown.to_json() if self._failures.shown else None,
            throttle=self._governor.throttle,
        )

    def limits(self) -> Limits:
        """What an operator may change."""
        return Limits(bandwidth_bytes_s=None if self._bucket.limit is None else int(self._bucket.limit))

    def set_limits(self, limits: Limits) -> None:
        """Change it until the next start."""
        self._log.info("limits changed", **limits.model_dump())
        self._bucket.set_limit(limits.bandwidth_bytes_s)

    def turn_idle_s(self) -> float | None:
        """None while the loop turns; else the seconds since its last turn."""
        idle_s = time.monotonic() - self._turned_at
        return idle_s if self._locks_node and idle_s > self._settings.poll_s + TURN_S_MAX else None

    def not_ready(self) -> list[str]:
        """What is missing before this node can do what it is told."""
        missing = [] if self._locks_node else ["the node's lock: another sidecar works here"]
        missing += [] if self._documents.topology else ["the cluster's topology"]
        return missing + [f"shard {name}" for name in self._clients if name not in self._shards]

    def metrics_text(self) -> bytes:
        """What Prometheus scrapes."""
        states = Counter(one.progress.state for one in self._versions.values())
        for state in State:
            self._metrics.versions.labels(state).set(states[state])
        self._metrics.held.set(self._bucket.waited_s)
        rate = self._bucket.rate
        self._metrics.rate.set(-1 if rate is None else rate)
        return self._metrics.text()

    async def control(self, action: str, dataset: str, version: str) -> None:
        """pause, resume, cancel or retry one version on this node.

        Raises:
            UnknownVersionError: the node does not know it.
            VersionActiveError: clients read what was to be cancelled.
            ShardUnavailableError: they may, but a shard that would know does not answer.
        """
        key = (dataset, version)
        known = self._known(dataset, version)
        hold = {"pause": Hold.PAUSED, "cancel": Hold.CANCELLED}.get(action)
        if hold is Hold.CANCELLED:
            await self._check_unread(known)
        self._log.info("control", action=action, dataset=dataset, version=version)
        try:
            await asyncio.to_thread(self._documents.hold, dataset, known.wanted, hold)
        except OSError as failed:
            raise disk_failure(failed, f"remembering to {action} {dataset} {version}") from failed
        if hold is None:
            self._work.clear(key)
            if action == "retry" and key not in self._work and known.progress.state is State.FAILED:
                known.progress.apply(Event.RETRY)  # at once: whoever asks next must not take the old failure for a new one
                known.progress.error = None
        else:
            self._work.stop(key)
        self.wake()

    async def _check_unread(self, known: VersionOnNode) -> None:
        shards = await self._ask_shards()
        what = f"{known.dataset} {known.wanted.version}"
        fields = {"dataset": known.dataset, "version": known.wanted.version}
        if known.is_read(shards):
            raise VersionActiveError(f"clients read {what}: activate another version first", **fields)
        silent = [name for name in self._clients if name not in shards]
        if silent and (known.wanted.goal is Goal.ACTIVE or known.progress.state is State.ACTIVE):
            message = f"shards {', '.join(silent)} do not answer, so clients may read {what} there: cancel it when they do"
            raise ShardUnavailableError(message, shards=silent, **fields)

    async def check(self, dataset: str, version: str) -> VersionCheck:
        """Look at one version again, through the shards.

        Raises:
            UnknownVersionError: the node does not know it.
            RedkvError: its manifest can't be read.
        """
        known = self._known(dataset, version)
        shards = await self._ask_shards()
        return await check_version(self._settings.node, self._store, self._clients, self._held_slots(), shards, dataset, known.wanted)

    def _known(self, dataset: str, version: str) -> VersionOnNode:
        known = self._versions.get((dataset, version))
        if known is None:
            raise UnknownVersionError(f"{dataset} {version} is not wanted on {self._settings.node}: see its status", dataset=dataset)
        return known

    async def run(self) -> None:
        """Reconcile until cancelled."""
        lock = await self._locked()
        self._locks_node = True
        node = Node(
            settings=self._settings,
            store=self._store,
            paths=self._paths,
            clients=self._clients,
            downloads=ThreadPoolExecutor(self._settings.downloads_max, "download"),
            ingests=asyncio.Semaphore(self._settings.ingests_max),
            lock=lock,
            bucket=self._bucket,
            deletes=Deletes(self._settings.deletes_bytes_s),
            metrics=self._metrics,
            pace=lambda: self._governor.pace,
        )
        governing = asyncio.create_task(self._governor.run(), name="governor")
        try:
            for name in self._clients:
                await asyncio.to_thread(remove_unpublished, node.shard_paths(name))
            while True:
                self._woken.clear()
                await self._turn_guarded(node)
                self._turned_at = time.monotonic()
                try:
                    await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)
                except TimeoutError:
                    continue
        finally:
            governing.cancel()
            await self._work.stop_all()
            os.close(lock)

    async def _locked(self) -> int:
        """The node's lock, waited for: until then another sidecar, or what it left running, may write here."""
        while (lock := await asyncio.to_thread(try_lock, self._paths.lock)) is None:
            message = f"another sidecar, or its ingest process, works in {self._paths.root}: this one waits; stop one of them if it lasts"
            self._failures.note([NodeError(message, node=self._settings.node)])
            await asyncio.sleep(LOCK_LOOK_S)
        self._failures.note([])
        return lock

    async def _turn_guarded(self, node: Node) -> None:
        try:
            self._failures.note(await self._turn(node))
        except RedkvError as failed:
            self._failures.note([failed])
        except Exception as unforeseen:  # noqa: BLE001 -- the loop must live; what happened is logged whole and shown in the status
            self._log.exception("turn failed")
            message = f"the sidecar of {self._settings.node} met an unforeseen failure: {unforeseen!r}; see its log"
            self._failures.note([RedkvError(message)])

    async def _turn(self, node: Node) -> list[RedkvError]:
        """One turn: all of it is tried; what went wrong."""
        failures: list[RedkvError] = []
        asked, self._asked = self._asked, False
        try:
            await asyncio.to_thread(self._documents.refresh)
        except RedkvError as failed:
            failures.append(failed)  # what was followed so far is worked towards all the same
        except OSError as failed:
            failures.append(disk_failure(failed, "remembering the followed epochs"))
        busy = self._work.busy
        resting = self._versions.keys() - busy  # only these are judged by what the shards say from here on
        self._shards = await self._ask_shards()
        failures += await self._tell_expected()
        if self._documents.topology is not None:
            failures += await self._tell_topology(node)
            self._forget_unwanted()
            failures += self._start_work(node, resting, asked=asked)
            if not self._is_behind(busy):
                self._topology_epoch = self._documents.topology.epoch
            if self._documents.desired is not None:
                cancelled = {key for key, one in self._versions.items() if self._documents.held(key[0], one.wanted) is Hold.CANCELLED}
                failures += await sweep(node, self._documents.desired, cancelled, self._shards, lambda: self._work.busy)
                try:
                    await asyncio.to_thread(self._documents.forget_holds)
                except OSError as failed:
                    failures.append(disk_failure(failed, "forgetting an operator's hold"))
        missing = [name for name in self._clients if name not in self._shards]
        if missing:
            failures.append(ShardUnavailableError(f"shards {', '.join(missing)} of {self._settings.node} do not answer", shards=missing))
        return failures

    def _is_behind(self, busy: AbstractSet[Key]) -> bool:
        """Whether some version may still go by the slots of an older topology: work on it does, or ended within this turn, of which `busy`
        were the versions at work when it began. What ended was not judged; its end begins the next turn.
        """
        held, at_work = self._held_slots(), self._work.busy
        return not busy <= at_work or any(self._versions[key].is_overtaken(held) for key in at_work & self._versions.keys())

    def _following(self) -> Following:
        return Following(self._documents.memory.desired_epoch, self._held_slots())

    def _held_slots(self) -> dict[str, Slots]:
        """What each shard of this node holds: the slots that it owns, or those of its primary."""
        topology = self._documents.topology
        if topology is None:
            return {}
        return {name: topology.held_by(name) for name in self._clients}

    async def _ask_shards(self) -> dict[str, ShardStatus]:
        async def ask(client: ShardClient) -> ShardStatus | None:
            try:
                return await client.status()
            except ShardUnavailableError:
                return None

        answers = await asyncio.gather(*map(ask, self._clients.values()))
        return {name: answer for name, answer in zip(self._clients, answers, strict=True) if answer is not None}

    def _slowest_pace(self, fetch_bytes_s: float) -> float:
        return max((one.slowest_pace(fetch_bytes_s, time.time() * 1000) for one in self._versions.values()), default=0.0)

    async def _tell_expected(self) -> list[RedkvError]:
        """Every shard hears which versions clients shall read, before it hears that slots are its own; what went wrong.

        A dataset's first version that is about to be activated needs no word before: its keys would go from absent to LOADING for a moment.
        """
        if self._documents.desired is None:
            return []
        desired = self._documents.desired.datasets
        at_hand = {name for name, wanted in desired.items() if self._is_at_hand(name, wanted)}
        told = [
            tell_expected(self._clients[name], shard, dataset, desired.get(dataset))
            for name, shard in self._shards.items()
            for dataset in desired.keys() | shard.datasets.keys()
            if dataset not in at_hand or ((known := shard.datasets.get(dataset)) is not None and known.active is not None)
        ]
        return [failed for failed in await asyncio.gather(*told) if failed is not None]

    def _is_at_hand(self, dataset: str, wanted: DesiredDataset) -> bool:
        """Whether the version that clients shall read is activated in this turn, as far as one can know."""
        if wanted.active is None or self._documents.held(dataset, wanted.active) is not None:
            return False
        known = self._versions.get((dataset, wanted.active.version))
        return known is not None and known.wanted.build_id == wanted.active.build_id and known.is_ready(self._shards, self._held_slots())

    async def _tell_topology(self, node: Node) -> list[RedkvError]:
        """Every shard follows the topology that this node follows; what went wrong with some of them."""
        topology = self._documents.topology
        failures: list[RedkvError] = []
        for name, shard in self._shards.items():
            if topology is None or shard.topology_epoch >= topology.epoch:
                continue
            try:
                await asyncio.to_thread(write_atomically, node.shard_paths(name).topology, topology.to_json())
                await self._clients[name].admin(AdminCommand.TOPOLOGY)
            except RedkvError as failed:
                failures.append(failed)
            except OSError as failed:
                failures.append(disk_failure(failed, f"telling shard {name} the topology"))
        return failures

    def _start_work(self, node: Node, resting: AbstractSet[Key], *, asked: bool) -> list[RedkvError]:
        desired = self._documents.desired
        failures: list[RedkvError] = []
        for name, dataset in desired.datasets.items() if desired else ():
            for wanted in dataset.versions:
                key = (name, wanted.version)
                known = self._versions.get(key)
                if known is not None and known.wanted.build_id != wanted.build_id:
                    self._work.forget(key)
                    known = None
                if known is None:
                    known = self._versions[key] = version_on_node(node, name, dataset, wanted)
                known.wanted = wanted
                if key in self._work:
                    if known.is_overtaken(self._held_slots()):
                        self._work.stop(key)  # and is begun again with what is there
                    continue
                try:
                    held = self._documents.held(name, wanted)
                    self._work.start(key, known, held, self._shards, judged=key in resting, asked=asked)
                except RedkvError as failed:
                    failures.append(failed)
                except OSError as failed:
                    failures.append(disk_failure(failed, f"looking for {name} {wanted.version}"))
        return failures

    def _forget_unwanted(self) -> None:
        desired = self._documents.desired
        if desired is None:
            return
        for dataset, version in list(self._versions):
            wanted = desired.datasets.get(dataset)
            if wanted is None or wanted.find(version) is None:
                self._work.forget((dataset, version))
                del self._versions[dataset, version]
