"""Ingestion as the sidecar sees it: a process of its own per version, told by JSON on its standard input, answering on its standard output.

The process runs at low priority, so that the shards' readers come first, and its memory goes with it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pydantic_core import from_json

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import IngestProcessError, RedkvError
from pipeline.format.manifest import ManifestFile
from pipeline.format.records import Record, VersionedRecord
from pipeline.format.slots import SlotRange

LOG_BYTES_SHOWN = 2000


class IngestFile(Record):
    """A staged file and what the manifest says of it."""

    path: Path
    file: ManifestFile


class IngestShard(Record):
    """What one shard needs: its data directory, its slots, and its files in key order."""

    name: str
    data_dir: Path
    slots: tuple[SlotRange, ...]
    files: tuple[IngestFile, ...]


class IngestJob(VersionedRecord):
    """What one ingest process does."""

    dataset: str
    version: str
    build_id: str
    manifest_sha256: str
    nice: int
    shards: tuple[IngestShard, ...]


async def run_ingest(job: IngestJob) -> dict[str, VersionIdentity]:
    """Make and publish the version directories of a job; what each shard holds then.

    Raises:
        RedkvError: as the process names it.
        IngestProcessError: it died without a word.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ingest_sidecar.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        answer, log = await process.communicate(job.to_json())
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode == 0:
        return {name: VersionIdentity.model_validate(one) for name, one in from_json(answer).items()}
    if answer:
        raise RedkvError.from_json(from_json(answer))
    said = log[-LOG_BYTES_SHOWN:].decode(errors="replace").strip()
    message = f"the ingest process of {job.dataset} {job.version} ended with code {process.returncode}: {said or 'it said nothing'}"
    raise IngestProcessError(message, dataset=job.dataset, version=job.version, code=process.returncode)
