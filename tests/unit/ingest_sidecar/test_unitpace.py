"""Units wait for readers, and for RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_sidecar.settings import OwnShard
from ingest_sidecar.shard_client import ShardClient
from ingest_sidecar.unitpace import (
    COMPACTED_S_MAX,
    COMPACTION_BYTES_MAX,
    LEVEL0_FILES_MAX,
    REST_S_LONGEST,
    REST_S_MAX,
    SHARE_MAX,
    at_full_pace_s,
    rest,
    until_compacted,
)
from pipeline.format.admin import ShardStatus
from pipeline.format.errors import CompactionLagError, Outcome
from pipeline.load.waiting import Patience


def unheard(what: str) -> None:
    raise AssertionError(what)


def rested(pace: float, worked_s: float, tell: Callable[[str], None]) -> float:
    """How long it rests after a unit."""
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    asyncio.run(rest(lambda: pace, worked_s, tell, sleep))
    return sum(naps)


@pytest.mark.parametrize("pace", [1.0, 0.5, 0.25])
def test_a_unit_is_followed_by_the_readers_share_of_time(pace: float) -> None:
    assert 0.01 / (0.01 + rested(pace, 0.01, unheard)) == pytest.approx(SHARE_MAX * pace)


@pytest.mark.parametrize("worked_s", [0.001, 0.05, 0.07, 0.3, 0.9])
@pytest.mark.parametrize("pace", [1.0, 0.5, 0.05])
def test_as_many_units_go_in_as_the_pace_says(worked_s: float, pace: float) -> None:
    told: list[str] = []
    rest_s = rested(pace, worked_s, told.append)
    assert pace * (worked_s + rest_s) == pytest.approx(at_full_pace_s(1, worked_s))
    assert len(told) == (pace < 1.0 and rest_s > REST_S_MAX)


def test_a_rest_is_never_so_long_that_it_looks_stuck() -> None:
    assert rested(1.0, 60.0, unheard) == pytest.approx(REST_S_MAX)
    told: list[str] = []
    assert rested(0.01, 60.0, told.append) == pytest.approx(REST_S_LONGEST)
    assert len(told) == 1
    assert Patience().stall_s_max / 2 >= REST_S_LONGEST


def test_what_is_left_takes_units_and_rests() -> None:
    assert at_full_pace_s(7, 0.01) == pytest.approx(7 * 0.01 / SHARE_MAX)
    assert at_full_pace_s(3, 60.0) == pytest.approx(3 * (60.0 + REST_S_MAX))
    assert at_full_pace_s(0, 1.0) == 0.0


def test_a_pause_lasts_until_it_is_over_and_is_told_once() -> None:
    naps: list[float] = []
    told: list[str] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    asyncio.run(rest(lambda: 0.0 if len(naps) < 5 else 1.0, 0.0, told.append, sleep))
    assert len(naps) == 5
    assert told == ["waiting for readers: their p99 is beyond its budget, or was lately"]


class ShardThatCompacts(ShardClient):
    """A shard whose database has so much to sort at each look."""

    def __init__(self, *looks: tuple[int, int]) -> None:
        super().__init__(OwnShard(name="a", data_dir=Path("/none"), admin_socket=Path("/none/admin.sock")))
        self.looks = list(looks)

    async def status(self) -> ShardStatus:
        files, left = self.looks.pop(0)
        more: dict[str, Any] = {"live_level0_files": files, "live_compaction_bytes": left}
        return ShardStatus(shard="a", pid=1, topology_epoch=1, datasets={}, live_keys=0, **more)


def test_a_unit_waits_until_what_came_before_is_compacted() -> None:
    told: list[str] = []

    async def sleep(_: float) -> None:
        return

    shard = ShardThatCompacts((LEVEL0_FILES_MAX, 0), (0, COMPACTION_BYTES_MAX), (LEVEL0_FILES_MAX - 1, 0))
    asyncio.run(until_compacted(shard, told.append, sleep))
    assert (len(shard.looks), told) == (0, ["waiting for shard a to compact"])


def test_a_shard_that_does_not_compact_is_not_waited_for_without_end() -> None:
    told: list[str] = []
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    shard = ShardThatCompacts(*((LEVEL0_FILES_MAX, left) for left in range(2000)))
    with pytest.raises(CompactionLagError, match=f"{LEVEL0_FILES_MAX} files of level 0") as late:
        asyncio.run(until_compacted(shard, told.append, sleep))
    assert late.value.outcome is Outcome.RETRYABLE
    assert sum(naps) == pytest.approx(COMPACTED_S_MAX, abs=1.0)
    assert Patience().stall_s_max > COMPACTED_S_MAX
    assert len(told) == 1
