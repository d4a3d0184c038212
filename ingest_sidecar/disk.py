"""What lies on this node's disk: version directories, staged files, leftovers; publishing and removing them durably.

Rules: a directory under `versions/` is whole, because it came there by one rename after everything in it was synced. One of the same name
is exchanged with it in the same system call, so that a shard that starts at any instant finds one of them. Everything under `making/` and
in staging can be removed at any time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import DiskFullError, FormatError, FormatVersionError, IngestProcessError, NodeError
from pipeline.format.layout import IDENTITY_FILE, NodePaths, ShardPaths


def published(paths: ShardPaths, dataset: str, version: str) -> VersionIdentity | None:
    """What a published version directory says of itself; None if there is none, or none that can be read: it is made again."""
    identity = paths.version(dataset, version) / IDENTITY_FILE
    if not identity.is_file():
        return None
    try:
        return VersionIdentity.from_json(identity.read_bytes(), str(identity))
    except FormatVersionError:
        raise
    except FormatError:
        return None


def publish(paths: ShardPaths, making: Path, identity: VersionIdentity) -> None:
    """Make a finished directory visible: sync everything, then one rename. One of that name changes places with it, and then goes; a shard
    that has it open reads on.
    """
    (making / IDENTITY_FILE).write_bytes(identity.to_json())
    for child in making.iterdir():
        sync(child)
    sync(making)
    final = paths.version(identity.dataset, identity.version)
    final.parent.mkdir(parents=True, exist_ok=True)
    sync(final.parent.parent)  # the first version of a dataset made its folder
    if final.exists():
        if not _exchange(making, final):
            remove_version(paths, identity.dataset, identity.version)
            final.parent.mkdir(parents=True, exist_ok=True)
            making.rename(final)
    else:
        making.rename(final)
    sync(final.parent)
    shutil.rmtree(making, ignore_errors=True)  # what stood there before, if anything


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
    final = paths.version(dataset, version)
    if not final.exists():
        return
    doomed = paths.making / f"{dataset}@{version}@removed"
    shutil.rmtree(doomed, ignore_errors=True)
    doomed.parent.mkdir(parents=True, exist_ok=True)
    final.rename(doomed)
    sync(final.parent)
    shutil.rmtree(doomed)
    if not any(final.parent.iterdir()):
        final.parent.rmdir()


def published_versions(paths: ShardPaths) -> Iterator[tuple[str, str]]:
    """All (dataset, version) whose directories are published."""
    if paths.versions.is_dir():
        for dataset in paths.versions.iterdir():
            for version in dataset.iterdir():
                yield dataset.name, version.name


def staged_versions(node: NodePaths) -> Iterator[tuple[str, str]]:
    """All (dataset, version) that have staged files."""
    if node.staging.is_dir():
        for dataset in node.staging.iterdir():
            for version in dataset.iterdir():
                yield dataset.name, version.name


def remove_staged(node: NodePaths, dataset: str, version: str) -> None:
    """Remove the staged files of a version."""
    folder = node.staging / dataset / version
    if folder.is_dir():
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def unpublished(paths: ShardPaths) -> Iterator[tuple[Path, str, str]]:
    """Everything unpublished, each with its dataset and version."""
    if paths.making.is_dir():
        for child in paths.making.iterdir():
            dataset, _, rest = child.name.partition("@")
            yield child, dataset, rest.partition("@")[0]


def remove_leftover(path: Path) -> None:
    """Remove something unpublished."""
    shutil.rmtree(path)


def remove_unpublished(paths: ShardPaths) -> None:
    """Remove everything unpublished: what a process that died left behind."""
    if paths.making.is_dir():
        shutil.rmtree(paths.making)


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
