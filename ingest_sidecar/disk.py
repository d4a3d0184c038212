"""What lies on this node's disk: version directories, staged files, leftovers; publishing and removing them durably.

Rules: a directory under `versions/` is whole, because it came there by one rename after everything in it was synced. One of the same name
is exchanged with it in the same system call, so that a shard that starts at any instant finds one of them. Everything under `making/` and
in staging can be removed at any time. The ingest process works with this module, so nothing here needs a model library.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

from pipeline.format.crashpoints import IngestPoint, crash_point
from pipeline.format.errors import DiskFullError, IngestProcessError, NodeError
from pipeline.format.layout import ETAG_SUFFIX, FILES_FILE, IDENTITY_FILE, PARTIAL_SUFFIX, SOURCES_FILE, SST_SUFFIX, NodePaths, ShardPaths

REMOVED = "removed-"  # no build id starts so


def publish(paths: ShardPaths, making: Path, dataset: str, version: str, identity: bytes) -> None:
    """Make a finished directory visible, whose VERSION.json is `identity`: sync everything, then one rename. One of that name changes
    places with it, and then goes; a shard that has it open reads on.
    """
    (making / IDENTITY_FILE).write_bytes(identity)
    for child in making.iterdir():
        sync(child)
    sync(making)
    crash_point(IngestPoint.SYNCED)
    final = paths.version(dataset, version)
    final.parent.mkdir(parents=True, exist_ok=True)
    sync(final.parent.parent)  # the first version of a dataset made its folder
    if final.exists():
        if not _exchange(making, final):
            remove_version(paths, dataset, version)
            final.parent.mkdir(parents=True, exist_ok=True)
            making.rename(final)
    else:
        making.rename(final)
    sync(final.parent)
    crash_point(IngestPoint.PUBLISHED)
    shutil.rmtree(making, ignore_errors=True)  # what stood there before, if anything


def note_sources(making: Path, originals: Mapping[Path, str], sha256: Mapping[str, str]) -> None:
    """Write SOURCES.json (notes.py): which of the directory's files still are one of these, whose names in the build are given, and what
    SHA-256 they have.
    """
    names = {inode(path): name for path, name in originals.items()}
    files = {child.name: names[inode(child)] for child in making.glob(f"*{SST_SUFFIX}") if inode(child) in names}
    noted = {"format_version": 1, "files": files, "sha256": sha256}
    (making / SOURCES_FILE).write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


def noted_sha256(directory: Path) -> dict[str, str | None]:
    """The SHA-256 of every SST file of a version directory, as it was noted when that was made; None where it was not."""
    try:
        noted = json.loads((directory / SOURCES_FILE).read_bytes()).get("sha256", {})
    except (OSError, ValueError):
        noted = {}
    return {path.name: noted.get(path.name) for path in directory.glob(f"*{SST_SUFFIX}")}


def note_files(making: Path, originals: Mapping[str, str]) -> None:
    """Write FILES.json (notes.py): the SST files that an upsert's directory has, of the names given with those in the build."""
    names = {originals[child.name]: child.name for child in sorted(making.glob(f"*{SST_SUFFIX}"))}
    (making / FILES_FILE).write_text(json.dumps({"format_version": 1, "names": names}, indent=1) + "\n", encoding="utf-8")


def has_files(directory: Path) -> bool:
    """Whether SST files lie there."""
    return any(directory.glob(f"*{SST_SUFFIX}"))


def remove_files(directory: Path) -> None:
    """Remove the SST files of a directory whose rows are in the live database; what it says of itself stays."""
    for child in directory.glob(f"*{SST_SUFFIX}"):
        child.unlink()


def copy_by_links(directory: Path, making: Path) -> None:
    """Begin a directory as a copy of a published one: its SST files by links, RocksDB's own notes by bytes."""
    for child in directory.iterdir():
        if child.suffix == SST_SUFFIX:
            os.link(child, making / child.name)
        elif child.name not in _NOT_COPIED:
            shutil.copyfile(child, making / child.name)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove the staged files that a plan no longer names, whole or in part."""
    if not folder.is_dir():
        return
    for child in folder.iterdir():
        if child.name.removesuffix(PARTIAL_SUFFIX).removesuffix(ETAG_SUFFIX) not in names:
            child.unlink()


def inode(path: Path) -> tuple[int, int]:
    """What a file is, under whatever name."""
    found = path.stat()
    return found.st_dev, found.st_ino


_NOT_COPIED = frozenset({IDENTITY_FILE, SOURCES_FILE, "LOCK", "LOG"})
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})  # an old kernel, or a file system without it


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places, in one step of the file system (Linux); False where that does not exist."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    failed = ctypes.get_errno()
    if failed in _NO_EXCHANGE:
        return False
    raise OSError(failed, os.strerror(failed), str(other))


def remove_version(paths: ShardPaths, dataset: str, version: str) -> None:
    """Remove a published directory: first out of sight by a rename, then its files, so that half a directory is never published."""
    doomed = hide_version(paths, dataset, version)
    if doomed is not None:
        shutil.rmtree(doomed)


def hide_version(paths: ShardPaths, dataset: str, version: str) -> Path | None:
    """Take a published directory out of sight by a rename; where its files are to be removed from, None if there is no such version."""
    final = paths.version(dataset, version)
    if not final.exists():
        return None
    doomed = paths.making / f"{dataset}@{version}@{REMOVED}{uuid4().hex}"
    doomed.parent.mkdir(parents=True, exist_ok=True)
    final.rename(doomed)
    sync(final.parent)
    _remove_if_empty(final.parent)
    return doomed


def published_versions(paths: ShardPaths) -> Iterator[tuple[str, str]]:
    """All (dataset, version) whose directories are published."""
    return _versions_below(paths.versions)


def staged_versions(node: NodePaths) -> Iterator[tuple[str, str]]:
    """All (dataset, version) that have staged files."""
    return _versions_below(node.staging)


def _versions_below(root: Path) -> Iterator[tuple[str, str]]:
    for dataset in _folders(root):
        for version in _folders(dataset):
            yield dataset.name, version.name


def _folders(root: Path) -> list[Path]:
    """The directories in one: another kind of file is none of ours, and what was just removed has none."""
    try:
        return [child for child in root.iterdir() if child.is_dir()]
    except FileNotFoundError:
        return []


def remove_staged(node: NodePaths, dataset: str, version: str) -> None:
    """Take the staged files of a version out of sight by a rename; they go with what else is hidden."""
    folder = node.staging / dataset / version
    if folder.is_dir():
        node.removed.mkdir(exist_ok=True)
        folder.rename(node.removed / uuid4().hex)
        _remove_if_empty(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    """Remove a dataset's folder unless a version lies there, perhaps since just now: another thread or process may bring one."""
    try:
        folder.rmdir()
    except OSError as refused:
        if refused.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise


def unpublished(paths: ShardPaths) -> Iterator[tuple[Path, str, str]]:
    """Everything unpublished, each with its dataset and version."""
    if paths.making.is_dir():
        for child in paths.making.iterdir():
            dataset, _, rest = child.name.partition("@")
            yield child, dataset, rest.partition("@")[0]


def is_hidden(leftover: Path) -> bool:
    """Whether it was taken out of sight: nobody touches it any more."""
    return leftover.name.rpartition("@")[2].startswith(REMOVED)


def remove_leftover(path: Path) -> None:
    """Take something unpublished out of sight by a rename; its files go with what else is hidden."""
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}@{REMOVED}{uuid4().hex}"))
    else:
        path.unlink()


def remove_unpublished(paths: ShardPaths) -> None:
    """Take everything unpublished out of sight: what a process that died left behind."""
    for leftover in [path for path, _, _ in unpublished(paths) if not is_hidden(path)]:
        remove_leftover(leftover)


def hidden_staged(node: NodePaths) -> list[Path]:
    """What was staged, and was taken out of sight."""
    return _folders(node.removed)


def write_atomically(path: Path, content: bytes) -> None:
    """Put a small file in place, whole or not at all, and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    sync(fresh)
    fresh.replace(path)
    sync(path.parent)


def try_lock(path: Path) -> int | None:
    """Lock a file for this process and the children that it hands the descriptor to; None while another process holds it.

    The lock goes with the last of them, so what a killed sidecar's ingest process may still write is never cleaned up under its hands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def disk_failure(failed: OSError, what: str) -> NodeError:
    """What the operating system refused, as one of our errors."""
    if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"{what} found the disk full ({failed}): free space there, it goes on by itself", path=failed.filename)
    return IngestProcessError(f"{what} was refused by the operating system: {failed}", path=failed.filename)


def sync(path: Path) -> None:
    """Bring a file or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Bytes free for this user on the file system of a path that exists."""
    return shutil.disk_usage(path).free
