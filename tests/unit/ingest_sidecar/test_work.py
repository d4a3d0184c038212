"""One version's way through its work: what is remembered of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.deletes import Deletes
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.plan import Slots
from ingest_sidecar.settings import OwnShard, SidecarSettings
from ingest_sidecar.upsert import UpsertOnNode
from ingest_sidecar.version import Node, VersionOnNode
from ingest_sidecar.work import BACKOFF_S_MIN, Following, Work
from pipeline.format.admin import ShardStatus
from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.errors import DiskFullError, NodeError, ShardUnavailableError
from pipeline.format.layout import NodePaths
from pipeline.load.states import Event, State
from pipeline.store import ObjectStore

V1 = "2026-11-22"


def node_of(root: Path) -> Node:
    """A node, none of whose shards has slots."""
    shard = OwnShard(name="a", data_dir=root / "shard", admin_socket=root / "shard.sock")
    settings = SidecarSettings(node="node-1", data_dir=root, store="s3://bucket", cluster="test", port=1, shards=(shard,))
    return Node(
        settings=settings,
        store=ObjectStore(settings.store),
        paths=NodePaths(root),
        clients={},
        downloads=ThreadPoolExecutor(1),
        ingests=asyncio.Semaphore(1),
        lock=-1,
        bucket=TokenBucket(),
        deletes=Deletes(None),
        metrics=Metrics(),
        pace=lambda: 1.0,
    )


def wanted(goal: Goal) -> DesiredVersion:
    return DesiredVersion(version=V1, build_id="b", manifest_key="m", manifest_sha256="0" * 64, goal=goal)


class FullLater(VersionOnNode):
    """A version that is staged every time, finds the disk full so often when it is made, and then cannot be activated as often."""

    times = 4

    def __init__(self, root: Path) -> None:
        super().__init__(node_of(root), "person", "person:", wanted(Goal.ACTIVE))
        self.full, self.away = self.times, self.times

    def observe(self, held: Mapping[str, Slots], shards: Mapping[str, ShardStatus]) -> None:
        """Nothing of it is there."""

    async def stage(self, held: Mapping[str, Slots]) -> None:
        self.progress.apply(Event.STAGE)
        self.progress.apply(Event.STAGE_DONE)

    async def ingest(self, held: Mapping[str, Slots]) -> None:
        self.progress.apply(Event.INGEST)
        self.full -= 1
        if self.full >= 0:
            raise DiskFullError("full")
        self.progress.apply(Event.INGEST_DONE)

    async def activate(self) -> None:
        self.away -= 1
        if self.away >= 0:
            raise ShardUnavailableError("away")
        self.progress.apply(Event.ACTIVATE)


def test_what_fails_again_is_repeated_ever_more_slowly_though_steps_before_it_succeed(tmp_path: Path) -> None:
    async def worked() -> list[float]:
        naps: list[float] = []

        async def sleep(seconds: float) -> None:
            naps.append(seconds)

        async def no_shards() -> Mapping[str, ShardStatus]:
            return {}

        ended = asyncio.Event()
        work = Work(lambda: Following(1, {}), no_shards, ended.set, Metrics(), sleep=sleep)
        work.start(("person", V1), FullLater(tmp_path), None, {}, judged=False, asked=False)
        await ended.wait()
        return naps

    naps = asyncio.run(worked())
    backoffs = [BACKOFF_S_MIN * 2**number for number in range(FullLater.times)] * 2  # begun anew where it came further
    assert len(naps) == len(backoffs)
    for nap, backoff_s in zip(naps, backoffs, strict=True):
        assert backoff_s / 2 <= nap <= backoff_s


def test_what_turns_out_to_be_in_has_no_failure_any_more(tmp_path: Path) -> None:
    version = UpsertOnNode(node_of(tmp_path), "person", "person:", wanted(Goal.ACTIVE))
    version.progress.apply(Event.FAIL)
    version.progress.error = NodeError("the shard refused a sample")
    version.progress.apply(Event.RETRY)
    version.observe({}, {})
    found = version.progress.status()
    assert (found.state, found.error) == (State.ACTIVE, None)
