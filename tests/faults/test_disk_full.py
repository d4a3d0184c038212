"""A disk that fills (a small tmpfs): a named error, readers served on, and work that goes on by itself when there is space."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ingest_sidecar.plan import DISK_RESERVE_BYTES
from pipeline.format.desired import Goal
from pipeline.format.records import Mode
from pipeline.format.slots import even_ranges
from pipeline.format.values import encode_string
from pipeline.load.states import State
from pipeline.load.status import NodeStatus
from tests.support.s3 import S3
from tests.support.shards import running_shards, topology_of
from tests.support.sidecars import Head, NodeUnderTest
from tests.support.values import read_all
from tests.support.versions import build_version

V1, V2 = "2026-11-21", "2026-11-22"
PREFIX = "person:"
DISK_BYTES = DISK_RESERVE_BYTES + (96 << 20)  # tmpfs takes memory only for what is written


def strings(seed: int, count: int = 2000, value_bytes: int = 1000) -> dict[bytes, bytes]:
    source = random.Random(seed)
    return {b"person:%d" % index: encode_string(source.randbytes(value_bytes)) for index in range(count)}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "d"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no permission to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize(("mode", "when"), [("replace", "planned"), ("replace", "written"), ("upsert", "sorted")])
def test_it_is_named_and_goes_on_by_itself(disk: Path, s3: S3, mode: Mode, when: str) -> None:
    """Found by the plan, before a byte, also where the files fit, but not a live database that sorts them in; or when the disk fills while
    files are written to it.
    """
    old, new = strings(1), strings(2)
    with running_shards(disk, 1) as shards:
        head = Head(s3.store)
        head.topology(topology_of(shards, [even_ranges(1)]))
        node = NodeUnderTest(disk, s3.url, s3.environment, shards)
        first = build_version(s3.store, "person", V1, old, prefix=PREFIX, mode=mode)
        second = build_version(s3.store, "person", V2, new, prefix=PREFIX, mode=mode)
        try:
            node.start()
            head.want(mode, person=(PREFIX, [first.wanted(Goal.ACTIVE)]))
            node.wake()
            node.until("person", V1, State.ACTIVE)
            ballast = disk / "ballast"
            if when == "planned":
                fill(ballast, DISK_RESERVE_BYTES + second.manifest.totals.bytes // 2)
            elif when == "sorted":
                fill(ballast, DISK_RESERVE_BYTES + second.manifest.totals.bytes * 3 // 2)
            else:
                node.ask("PUT", "limits", {"bandwidth_bytes_s": 1})
            head.want(mode, person=(PREFIX, [first.wanted(Goal.RETIRED), second.wanted(Goal.ACTIVE)]))
            node.wake()
            if when == "written":
                node.until_true(
                    "the download", lambda status: (found := status.find("person", V2)) is not None and found.step == "downloading"
                )
                fill(ballast, 4096)
                node.ask("PUT", "limits", {"bandwidth_bytes_s": None})
            node.until_true("the full disk to be named", lambda status: _error(status) == "DiskFullError")
            assert read_all(shards, old) == old
            ballast.unlink()
            node.until("person", V2, State.ACTIVE)
            assert read_all(shards, new) == new
        finally:
            node.kill()


def fill(ballast: Path, left: int) -> None:
    """Fill a disk but for `left` bytes."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):  # full
            while True:
                file.write(bytes(1 << 20))
        file.truncate(file.tell() - left)


def _error(status: NodeStatus) -> str:
    found = status.find("person", V2)
    return str(found.error["error"]) if found is not None and found.error is not None else ""
