"""Ten loads in a row with other values for every key, under steady readers: each of them sees every key go on, once per load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.builds import hash_spec
from tests.support.clusters import running_cluster
from tests.support.readers import READ_KEYS, READERS, SteadyReaders
from tests.support.s3 import s3_store

VERSIONS = [f"2026-11-{day:02d}" for day in range(1, 12)]  # one to start with, and ten


def test_every_key_goes_from_old_to_new_once_never_back_never_absent_never_mixed(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path = tmp_path_factory.mktemp("row")
    spec = hash_spec("person", "person:${id}")
    windows = []
    with s3_store() as server, running_cluster(server, folder) as cluster:
        for version in VERSIONS:
            cluster.build(spec, version)
        first, *others = VERSIONS
        cluster.load(spec, first)
        with SteadyReaders(cluster, spec) as readers:
            for version in others:
                windows.append(cluster.load(spec, version).swap_window_s)
                readers.await_turn()
        assert cluster.served(spec) == {VERSIONS[-1]}
    told = [f"{1000 * window:.0f}" for window in windows if window is not None]
    assert len(told) == len(others)
    assert len(readers.seen) == READERS * READ_KEYS
    assert {who: changes for who, changes in readers.seen.items() if changes != VERSIONS} == {}
    with capsys.disabled():
        sys.stdout.write(f"\nten loads in a row: ms between the first and the last shard's swap: {', '.join(told)}\n")
