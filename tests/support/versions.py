"""Version directories for tests of a shard, made as a sidecar makes them: SST files, IngestExternalFile, identity, publish by rename."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rocksdict import IngestExternalFileOptions, Options, Rdict, SstFileWriter

from pipeline.format.admin import VersionIdentity
from pipeline.format.keys import meta_key
from pipeline.format.layout import IDENTITY_FILE, ShardPaths
from pipeline.format.slots import SLOT_COUNT, SlotRange

ALL_SLOTS = (SlotRange(first=0, last=SLOT_COUNT - 1),)


def publish_version(
    paths: ShardPaths,
    dataset: str,
    version: str,
    rows: Mapping[bytes, bytes],
    *,
    build_id: str = "build-1",
    slots: tuple[SlotRange, ...] = ALL_SLOTS,
) -> Path:
    """Publish `rows` (user key to meta value) as a version of a dataset."""
    making = paths.unpublished(dataset, version, build_id)
    making.mkdir(parents=True)
    sst = making.with_suffix(".sst")
    entries = sorted((meta_key(key), value) for key, value in rows.items())
    database = Rdict(str(making), options=Options(raw_mode=True))
    if entries:
        writer = SstFileWriter(Options(raw_mode=True))
        writer.open(str(sst))
        for key, value in entries:
            writer[key] = value
        writer.finish()
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        database.ingest_external_file([str(sst)], moving)
    database.close()
    identity = VersionIdentity(
        dataset=dataset,
        version=version,
        build_id=build_id,
        manifest_sha256="0" * 64,
        slots=slots,
        keys=len(entries),
        entries=len(entries),
    )
    (making / IDENTITY_FILE).write_bytes(identity.to_json())
    published = paths.version(dataset, version)
    published.parent.mkdir(parents=True, exist_ok=True)
    making.rename(published)
    return published


def write_live(paths: ShardPaths, rows: Mapping[bytes, bytes]) -> None:
    """Put meta values into the live database of a shard that does not run."""
    paths.live.mkdir(parents=True, exist_ok=True)
    database = Rdict(str(paths.live), options=Options(raw_mode=True))
    for key, value in rows.items():
        database[meta_key(key)] = value
    database.close()
