"""Publishing, removing and locking on a real file system."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from ingest_sidecar.disk import (
    disk_failure,
    hidden_staged,
    is_hidden,
    publish,
    published_versions,
    remove_leftover,
    remove_staged,
    remove_unpublished,
    remove_version,
    staged_versions,
    try_lock,
    unpublished,
    write_atomically,
)
from ingest_sidecar.notes import published
from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import DiskFullError, IngestProcessError
from pipeline.format.layout import NodePaths, ShardPaths

V1 = "2026-11-22"


def identity(build_id: str) -> VersionIdentity:
    return VersionIdentity(dataset="person", version=V1, build_id=build_id, manifest_sha256="0" * 64, slots=(), keys=1, entries=1)


def make(paths: ShardPaths, build_id: str) -> Path:
    making = paths.unpublished("person", V1, build_id)
    making.mkdir(parents=True)
    (making / "data").write_text(build_id)
    return making


def test_a_directory_is_published_whole_and_replaced_whole(tmp_path: Path) -> None:
    paths = ShardPaths(tmp_path)
    assert published(paths, "person", V1) is None
    for build_id in ("one", "two"):
        publish(paths, make(paths, build_id), "person", V1, identity(build_id).to_json())
        assert published(paths, "person", V1) == identity(build_id)
        assert (paths.version("person", V1) / "data").read_text() == build_id
    assert list(published_versions(paths)) == [("person", V1)]
    assert not list(paths.making.iterdir())
    remove_version(paths, "person", V1)
    remove_version(paths, "person", V1)
    assert not list(paths.versions.iterdir())


def test_leftovers_say_whose_they_are(tmp_path: Path) -> None:
    paths = ShardPaths(tmp_path)
    assert list(unpublished(paths)) == []
    made = make(paths, "one")
    links = made.with_name(made.name + ".links")
    links.mkdir()
    assert sorted(unpublished(paths)) == [(made, "person", V1), (links, "person", V1)]
    remove_leftover(links)
    assert [path for path, _, _ in unpublished(paths) if not is_hidden(path)] == [made]
    stray = paths.making / "stray"
    stray.touch()
    remove_unpublished(paths)
    hidden = sorted(unpublished(paths))
    remove_unpublished(paths)
    assert sorted(unpublished(paths)) == hidden
    assert [(is_hidden(path), dataset, version) for path, dataset, version in hidden] == 2 * [(True, "person", V1)]
    assert sum(len(list(path.iterdir())) for path, _, _ in hidden) == 1  # what was made is still there: it goes at a pace


def test_staged_files_go_with_their_folders(tmp_path: Path) -> None:
    node = NodePaths(tmp_path)
    assert list(staged_versions(node)) == []
    for version in (V1, "2026-11-23"):
        node.staged_build("person", version, "b").mkdir(parents=True)
    (node.staged_build("person", V1, "b") / "0.sst").write_bytes(b"rows")
    remove_staged(node, "person", V1)
    [hidden] = hidden_staged(node)
    assert (hidden / "b" / "0.sst").read_bytes() == b"rows"  # it goes at a pace
    assert list(staged_versions(node)) == [("person", "2026-11-23")]
    remove_staged(node, "person", "2026-11-23")
    assert not list(node.staging.iterdir())
    assert len(hidden_staged(node)) == 2


def test_a_stray_file_is_no_version(tmp_path: Path) -> None:
    node, paths = NodePaths(tmp_path), ShardPaths(tmp_path)
    node.staged_build("person", V1, "b").mkdir(parents=True)
    paths.version("person", V1).mkdir(parents=True)
    for root in (node.staging, paths.versions):
        (root / "stray").touch()
        (root / "person" / "stray").touch()
    assert list(staged_versions(node)) == list(published_versions(paths)) == [("person", V1)]


def test_what_goes_while_it_is_looked_at_is_no_version(tmp_path: Path) -> None:
    node = NodePaths(tmp_path)
    for dataset in ("person", "plane"):
        node.staged_build(dataset, V1, "b").mkdir(parents=True)
    found = staged_versions(node)
    first, _ = next(found)
    for dataset in {"person", "plane"} - {first}:
        remove_staged(node, dataset, V1)
    assert list(found) == []


def test_a_small_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sidecar.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_the_lock_is_held_as_long_as_a_child_lives(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "node" / "sidecar.lock")
    assert lock is not None
    assert try_lock(tmp_path / "node" / "sidecar.lock") is None
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert try_lock(tmp_path / "node" / "sidecar.lock") is None
    child.communicate()
    again = try_lock(tmp_path / "node" / "sidecar.lock")
    assert again is not None
    os.close(again)


def test_a_full_disk_has_its_own_name() -> None:
    assert isinstance(disk_failure(OSError(errno.ENOSPC, "full"), "staging"), DiskFullError)
    assert isinstance(disk_failure(OSError(errno.EXDEV, "another disk"), "ingesting"), IngestProcessError)
