"""Files of removed directories go at a pace."""

from __future__ import annotations

import os
from pathlib import Path

from ingest_sidecar.deletes import SAVED_S_MAX, Deletes


def filled(root: Path, files: int, file_bytes: int) -> Path:
    for number in range(files):
        path = root / f"folder-{number % 2}" / f"{number}.sst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(file_bytes))
    return root


def left(root: Path) -> int:
    return len(list(root.rglob("*.sst")))


def test_a_second_takes_what_a_second_may_and_a_file_more_at_most(tmp_path: Path) -> None:
    now = [0.0]
    deletes = Deletes(100, lambda: now[0])
    root = filled(tmp_path / "doomed", 10, 60)
    assert not deletes.remove(root)  # a second's worth is there from the start: two files, the second of which overdraws
    assert left(root) == 8
    assert not deletes.remove(root)
    assert left(root) == 8
    turns = 0
    while not deletes.remove(root):
        now[0] += 1
        turns += 1
    assert not root.exists()
    assert turns in {4, 5}  # 480 bytes at 100 a second


def test_a_long_silence_saves_up_for_a_few_seconds_only(tmp_path: Path) -> None:
    now = [0.0]
    deletes = Deletes(100, lambda: now[0])
    now[0] = 1_000_000.0
    root = filled(tmp_path / "doomed", 100, 100)
    assert not deletes.remove(root)
    assert 100 - left(root) == SAVED_S_MAX + 1


def test_without_a_limit_all_goes_at_once(tmp_path: Path) -> None:
    assert Deletes(None).remove(filled(tmp_path / "doomed", 5, 1 << 16))
    assert not (tmp_path / "doomed").exists()


def test_a_link_to_what_others_have_takes_nothing_of_the_pace(tmp_path: Path) -> None:
    root = filled(tmp_path / "doomed", 20, 60)
    for path in root.rglob("*.sst"):
        os.link(path, tmp_path / path.name)
    assert Deletes(100, lambda: 0.0).remove(root)
    assert left(tmp_path) == 20
