"""Versions for tests, without Spark.

`publish_version` makes a version directory as a sidecar does: an SST file, IngestExternalFile, identity, publish by rename.
`build_version` puts a version's files and its manifest into an object store as the build job does, `build_delta` those of a delta.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rocksdict import IngestExternalFileOptions, Options, Rdict, SstFileWriter

from pipeline.format.admin import VersionIdentity
from pipeline.format.desired import DesiredVersion, Goal
from pipeline.format.digest import ContentDigest
from pipeline.format.keys import KIND_AT, Kind, meta_key, slot_bounds
from pipeline.format.layout import IDENTITY_FILE, ShardPaths, manifest_key, new_build_id, sst_key
from pipeline.format.manifest import BaseVersion, Manifest, ManifestFile, ManifestSample, Totals, Whole
from pipeline.format.records import Mode
from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges
from pipeline.format.values import Flag, canonical_reply
from pipeline.store import ObjectStore

ALL_SLOTS = (SlotRange(first=0, last=SLOT_COUNT - 1),)


def publish_version(
    paths: ShardPaths,
    dataset: str,
    version: str,
    rows: Mapping[bytes, bytes],
    *,
    build_id: str = "build-1",
    slots: tuple[SlotRange, ...] = ALL_SLOTS,
    elements: Mapping[bytes, bytes] | None = None,
) -> Path:
    """Publish `rows` (user key to meta value) as a version of a dataset; `elements` are those of big collections, by internal key."""
    making = paths.unpublished(dataset, version, build_id)
    making.mkdir(parents=True)
    sst = making.with_suffix(".sst")
    entries = sorted([*((meta_key(key), value) for key, value in rows.items()), *(elements or {}).items()])
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
    return _publish(paths, making, dataset, version, build_id, slots, (len(rows), len(entries)))


def publish_built(store: ObjectStore, paths: ShardPaths, manifest: Manifest) -> Path:
    """Publish a version that the build job brought to an object store, all slots of it."""
    making = paths.unpublished(manifest.dataset, manifest.version, manifest.build_id)
    making.mkdir(parents=True)
    database = Rdict(str(making), options=Options(raw_mode=True))
    with TemporaryDirectory(dir=making.parent) as folder:
        files = [Path(folder) / f"{index}.sst" for index in range(len(manifest.files))]
        for path, file in zip(files, manifest.files, strict=True):
            path.write_bytes(store.get(file.object_key).data)
        moving = IngestExternalFileOptions()
        moving.set_move_files(True)
        database.ingest_external_file([str(path) for path in files], moving)
    database.close()
    counts = (manifest.totals.keys, manifest.totals.entries)
    return _publish(paths, making, manifest.dataset, manifest.version, manifest.build_id, ALL_SLOTS, counts)


def _publish(
    paths: ShardPaths, making: Path, dataset: str, version: str, build_id: str, slots: tuple[SlotRange, ...], counts: tuple[int, int]
) -> Path:
    keys, entries = counts
    identity = VersionIdentity(
        dataset=dataset, version=version, build_id=build_id, manifest_sha256="0" * 64, slots=slots, keys=keys, entries=entries
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


@dataclass(frozen=True, slots=True)
class BuiltVersion:
    """A version in an object store: its manifest, and the SHA-256 of the manifest's bytes."""

    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def of(cls, manifest: Manifest, data: bytes) -> BuiltVersion:
        """One whose manifest was written as these bytes."""
        return cls(manifest, hashlib.sha256(data).hexdigest())

    def wanted(self, goal: Goal) -> DesiredVersion:
        """Its entry in a desired state."""
        return DesiredVersion(
            version=self.manifest.version,
            build_id=self.manifest.build_id,
            manifest_key=manifest_key(self.manifest.dataset, self.manifest.version),
            manifest_sha256=self.manifest_sha256,
            goal=goal,
        )


def build_version(
    store: ObjectStore,
    dataset: str,
    version: str,
    rows: Mapping[bytes, bytes | None],
    *,
    prefix: str,
    mode: Mode = "replace",
    elements: Mapping[bytes, bytes] | None = None,
    kind: Literal["string", "hash", "zset"] = "string",
    partitions: Sequence[SlotRange] | None = None,
    samples_every: int = 10,
    wrong_samples: frozenset[bytes] = frozenset(),
    spec: dict[str, Any] | None = None,
) -> BuiltVersion:
    """Build `rows` (user key to meta value, or None for a delete) and `elements` (of big collections, by internal key), a file per slot
    partition that has any (default: three, whose borders no even number of shards shares); every `samples_every`th key is a sample,
    those of `wrong_samples` with a reply that nobody gives."""
    build_id = new_build_id()
    entries = sorted([*((meta_key(key), value) for key, value in rows.items()), *(elements or {}).items()])
    files = []
    with TemporaryDirectory() as folder:
        for index, slots in enumerate(partitions or even_ranges(3)):
            first, end = (bisect_left(entries, bound, key=itemgetter(0)) for bound in slot_bounds(slots.first, slots.last))
            if mine := entries[first:end]:
                key = sst_key(dataset, version, build_id, index, "1", 0)
                files.append(_upload(store, Path(folder) / f"{index}.sst", key, slots, mine))
    put = {key: value for key, value in rows.items() if value is not None}
    samples = [_sample(key, value) for key, value in list(put.items())[::samples_every] if not value[1] & Flag.BIG]
    samples += [ManifestSample(key=key, reply_sha256="0" * 64) for key in sorted(wrong_samples)]
    manifest = Manifest(
        dataset=dataset,
        version=version,
        build_id=build_id,
        built_at_ms=0,
        prefix=prefix,
        type=kind,
        mode=mode,
        spec=spec or {},
        totals=Totals(
            source_rows=len(rows),
            stored_rows=len(put),
            duplicates=0,
            skipped=0,
            keys=len(put),
            entries=len(put) + len(elements or {}),
            deletes=len(rows) - len(put),
            bytes=sum(one.bytes for one in files),
        ),
        files=tuple(files),
        samples=tuple(samples),
    )
    data = manifest.to_json()
    store.create(manifest_key(dataset, version), data)
    return BuiltVersion.of(manifest, data)


def build_delta(
    store: ObjectStore,
    base: BuiltVersion,
    version: str,
    rows: Mapping[bytes, bytes | None],
    *,
    elements: Mapping[bytes, bytes | None] | None = None,
    whole: tuple[int, int] | None = None,
    partitions: Sequence[SlotRange] | None = None,
    samples_every: int = 1,
    wrong_samples: frozenset[bytes] = frozenset(),
) -> BuiltVersion:
    """A version that lies on `base`: `rows` (user key to meta value) and `elements` (by internal key) that it changes, None where they go;
    `whole` are the keys and entries that it comes to. Every `samples_every`th row is a sample,
    those of `wrong_samples` with a reply that nobody gives.
    """
    below, build_id = base.manifest, new_build_id()
    entries = sorted([*((meta_key(key), value) for key, value in rows.items()), *(elements or {}).items()])
    files = []
    with TemporaryDirectory() as folder:
        for index, slots in enumerate(partitions or even_ranges(3)):
            for gone in (False, True):
                first, end = (bisect_left(entries, bound, key=itemgetter(0)) for bound in slot_bounds(slots.first, slots.last))
                mine = [(key, value) for key, value in entries[first:end] if (value is None) is gone]
                if mine:
                    key = sst_key(below.dataset, version, build_id, index, "d" if gone else "p", 0)
                    files.append(_upload(store, Path(folder) / f"{index}{gone}.sst", key, slots, mine))
    files.sort(key=lambda one: one.smallest)
    put = {key: value for key, value in rows.items() if value is not None and not value[1] & Flag.BIG}
    samples = [
        ManifestSample(key=key, reply_sha256="0" * 64) if key in wrong_samples else _sample(key, put[key])
        for key in list(put)[::samples_every]
    ]
    summed = {name: sum(getattr(one, name) for one in files) for name in ("keys", "entries", "deletes", "bytes")}
    totals = Totals(source_rows=len(rows), stored_rows=len(rows), duplicates=0, skipped=0, **summed)
    if whole is None:
        totals = totals.model_copy(update={"stored_rows": len(rows) - summed["deletes"]})
    lies_on = BaseVersion(version=below.version, build_id=below.build_id, manifest_sha256=base.manifest_sha256)
    manifest = Manifest(
        format_version=2,
        **{name: getattr(below, name) for name in ("dataset", "prefix", "type", "mode", "spec", "built_at_ms")},
        version=version,
        build_id=build_id,
        totals=totals,
        files=tuple(files),
        samples=tuple(samples),
        bases=(lies_on, *below.bases),
        whole=Whole(keys=whole[0], entries=whole[1]) if whole else None,
    )
    data = manifest.to_json()
    store.create(manifest_key(below.dataset, version), data)
    return BuiltVersion.of(manifest, data)


def _sample(key: bytes, value: bytes) -> ManifestSample:
    return ManifestSample(key=key, reply_sha256=hashlib.sha256(canonical_reply(value)).hexdigest())


def _upload(store: ObjectStore, path: Path, key: str, slots: SlotRange, entries: list[tuple[bytes, bytes | None]]) -> ManifestFile:
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(path))
    for internal_key, value in entries:
        writer[internal_key] = value or b""
    writer.finish()
    deletes = [value for _, value in entries].count(None)
    metas = [key[KIND_AT] for key, value in entries if value is not None].count(Kind.META)
    digest = ContentDigest()
    digest.update([one for one, _ in entries], [value for _, value in entries])
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    store.upload(path, key, sha256)
    return ManifestFile(
        object_key=key,
        slots=slots,
        smallest=entries[0][0],
        largest=entries[-1][0],
        keys=metas,
        entries=len(entries) - deletes,
        deletes=deletes,
        bytes=len(data),
        sha256=sha256,
        content_digest=digest.hexdigest(),
    )
