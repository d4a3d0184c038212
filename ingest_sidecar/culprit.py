"""Which key it is, when a file is not what its manifest says, a staged one or one of a directory that a delta begins with: the node's copy
is compared with the object store's, entry by entry.

The entries are read by a process of its own (difference.py): the sidecar itself holds no RocksDB.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ingest_sidecar.job import IngestFile, IngestJob
from pipeline.format.errors import IntegrityError, RedkvError
from pipeline.format.keys import parse_key
from pipeline.format.layout import ShardPaths
from pipeline.store import ObjectStore

ORIGINAL_SUFFIX = ".original"


async def with_key(broken: IntegrityError, job: IngestJob, store: ObjectStore) -> IntegrityError:
    """The failure of an ingest job, with the first key whose entry differs, as far as one can be found: that takes the file's original."""
    copy, folder = _suspect(broken, job)
    if copy is None:
        return broken
    original = folder / (copy.name + ORIGINAL_SUFFIX)
    try:
        await asyncio.to_thread(_fetch, store, broken.fields["object"], original)
        found = await _compared(original, copy)
        key = parse_key(bytes.fromhex(found)).user_key.decode(errors="backslashreplace") if found else None
    except (RedkvError, OSError) as unknown:
        return _again(broken, f"which key it is could not be found out: {unknown}")
    finally:
        original.unlink(missing_ok=True)
    if key is None:
        return _again(broken, "all its entries read as they were built")
    return _again(broken, f"the first key that differs is {key}", key=key)


def named_file(broken: IntegrityError, job: IngestJob) -> IngestFile | None:
    """The staged file that a failure of an ingest job is about; None if it names none."""
    files = (one for shard in job.shards for one in shard.all_files if "copy" not in broken.fields)
    return next((one for one in files if one.object_key == broken.fields.get("object")), None)


def _suspect(broken: IntegrityError, job: IngestJob) -> tuple[Path | None, Path]:
    """The copy to be compared, None if there is none, and a folder on its file system where anything is removed that stays behind."""
    if (file := named_file(broken, job)) is not None:
        return file.path, file.path.parent
    for shard in job.shards:
        if shard.base is not None and shard.name == broken.fields.get("shard") and {"copy", "object"} <= broken.fields.keys():
            return Path(broken.fields["copy"]), ShardPaths(shard.data_dir).unpublished(job.dataset, job.version, job.build_id)
    return None, Path()


def _again(broken: IntegrityError, more: str, **fields: str) -> IntegrityError:
    return type(broken)(f"{broken.message}; {more}", **{**broken.fields, **fields})


def _fetch(store: ObjectStore, object_key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = store.open_range(object_key, 0, store.size(object_key))
    with path.open("wb") as whole:
        for chunk in part.chunks if part is not None else ():
            whole.write(chunk)


async def _compared(original: Path, copy: Path) -> str:
    command = [sys.executable, *(("-P",) if sys.flags.safe_path else ()), "-m", "ingest_sidecar.difference", str(original), str(copy)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        told, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"the comparison ended with code {process.returncode}: {said.decode(errors='replace').strip()}")
    return told.decode().strip()
