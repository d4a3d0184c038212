"""How the pace follows the readers' p99, and how a p99 is read from two reports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_sidecar import governor
from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.governor import Governor, next_pace, p99_us
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.settings import OwnShard, SidecarSettings
from ingest_sidecar.shard_client import ShardClient
from pipeline.format.admin import LATENCY_BUCKETS, AdminCommand, latency_bucket, latency_top_ns

BUDGET, FLOOR = 1000.0, 0.1


def test_it_falls_fast_to_the_floor_and_rises_slowly_to_one() -> None:
    pace, fallen = 1.0, list[float]()
    for _ in range(5):
        pace = next_pace(pace, 2 * BUDGET, BUDGET, FLOOR)
        fallen.append(pace)
    assert fallen == [0.5, 0.25, 0.125, FLOOR, FLOOR]
    risen: list[float] = []
    while pace < 1.0:
        pace = next_pace(pace, BUDGET if len(risen) % 2 else None, BUDGET, FLOOR)
        risen.append(pace)
    assert len(risen) == 18
    assert risen == sorted(risen)
    assert next_pace(1.0, 2 * BUDGET, BUDGET, 0.0) == 0.5


def test_without_a_floor_it_falls_to_a_pause_and_comes_out_of_it() -> None:
    pace = 1.0
    for _ in range(7):
        pace = next_pace(pace, 2 * BUDGET, BUDGET, 0.0)
    assert pace == 0.0
    assert next_pace(pace, BUDGET, BUDGET, 0.0) > 0.0
    assert next_pace(pace, 2 * BUDGET, BUDGET, 0.001) == 0.001


class ShardThatHangs(ShardClient):
    """A shard that takes every question, and answers none."""

    async def admin(self, command: AdminCommand, *words: str) -> Any:
        await asyncio.Event().wait()


def test_a_shard_that_hangs_slows_it_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(governor, "ANSWER_S", 0.02)
    shard = OwnShard(name="a", data_dir=tmp_path, admin_socket=tmp_path / "admin.sock")
    settings = SidecarSettings(node="n", data_dir=tmp_path, store="s3://b", cluster="c", port=1, shards=(shard,), readers_p99_ms_max=10.0)
    one = Governor(settings, {"a": ShardThatHangs(shard)}, TokenBucket(None), Metrics(), lambda _: 0.0)
    asyncio.run(one.look())
    assert (one.pace, one.throttle.reason) == (0.5, "p99 of an answer in shard a is 20000 us, the budget 10000 us")


@given(ns=st.integers(min_value=0, max_value=1 << 60))
def test_a_duration_lies_in_its_bucket(ns: int) -> None:
    bucket = latency_bucket(ns)
    assert 0 <= bucket < LATENCY_BUCKETS
    assert ns < latency_top_ns(bucket) <= max(4, ns * 5 / 4 + 2)


def test_the_p99_is_of_what_came_between_two_reports() -> None:
    quick, slow = latency_bucket(10_000), latency_bucket(5_000_000)
    before = {quick: 1000, slow: 500}
    assert p99_us({quick: 2000, slow: 505}, before) == pytest.approx(10, rel=0.25)
    assert p99_us({quick: 2000, slow: 520}, before) == pytest.approx(5000, rel=0.25)
    assert p99_us({quick: 1010, slow: 500}, before) is None
    assert p99_us({quick: 100}, before) is None
