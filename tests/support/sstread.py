"""Reading a version's files back from the store, independently of sidecar and shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rocksdict import Options, Rdict

from pipeline.format.keys import ELEMENT_KINDS, Kind, parse_key
from pipeline.format.manifest import Manifest
from pipeline.format.values import BigValue, MetaValue, ValueType, decode_value
from pipeline.store import ObjectStore


def read_version(store: ObjectStore, manifest: Manifest) -> dict[bytes, MetaValue]:
    """Every user key of a version and its value."""
    return {key: decode_value(value) for key, value in _entries(store, manifest) if value}


def read_deletes(store: ObjectStore, manifest: Manifest) -> set[bytes]:
    """Every user key that an upsert deletes."""
    return {key for key, value in _entries(store, manifest) if not value}


def read_raw(store: ObjectStore, *chain: Manifest) -> dict[bytes, bytes]:
    """All entries of versions that lie on each other, the full one first, by internal key: what is left when each is laid over."""
    found: dict[bytes, bytes] = {}
    for manifest in chain:
        found.update(_entries_of(store, [one.object_key for one in manifest.files if not one.deletes]))
        for key, _ in _entries_of(store, [one.object_key for one in manifest.files if one.deletes]):
            found.pop(key, None)
    return found


def read_whole(store: ObjectStore, *chain: Manifest) -> dict[bytes, object]:
    """Every user key of such versions and its value; of a large collection, its elements."""
    raw = read_raw(store, *chain)
    elements: dict[tuple[bytes, int], dict[bytes, bytes]] = {}
    for key, value in raw.items():
        parsed = parse_key(key)
        if parsed.kind in ELEMENT_KINDS:
            elements.setdefault((parsed.user_key, parsed.version), {})[bytes((parsed.kind,)) + parsed.detail] = value
    whole: dict[bytes, object] = {}
    for key, value in raw.items():
        if (parsed := parse_key(key)).kind is Kind.META:
            meta = decode_value(value)
            if isinstance(meta, BigValue):
                found = elements[parsed.user_key, meta.version]
                assert len(found) == meta.count * (2 if meta.type is ValueType.ZSET else 1)
                whole[parsed.user_key] = (meta.type, meta.expiry_ms, found)
            else:
                whole[parsed.user_key] = meta
    return whole


def _entries_of(store: ObjectStore, object_keys: list[str]) -> list[tuple[bytes, bytes]]:
    with TemporaryDirectory(prefix="redkv-read-") as folder:
        database = Rdict(f"{folder}/database", Options(raw_mode=True))
        paths = [Path(folder) / f"{index}.sst" for index in range(len(object_keys))]
        for path, key in zip(paths, object_keys, strict=True):
            path.write_bytes(store.get(key).data)
        if paths:
            database.ingest_external_file([str(path) for path in paths])
        found: list[tuple[bytes, bytes]] = list(database.items())  # type: ignore[arg-type]  # raw mode gives bytes
        database.close()
        return found


def _entries(store: ObjectStore, manifest: Manifest) -> Iterator[tuple[bytes, bytes]]:
    with TemporaryDirectory(prefix="redkv-read-") as folder:
        for index, file in enumerate(manifest.files):
            path = Path(folder) / f"{index}.sst"
            path.write_bytes(store.get(file.object_key).data)
            database = Rdict(f"{folder}/{index}", Options(raw_mode=True))
            database.ingest_external_file([str(path)])
            for key, value in database.items():
                assert isinstance(key, bytes)
                yield parse_key(key).user_key, value
            database.close()
