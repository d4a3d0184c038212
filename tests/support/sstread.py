"""Reading a version's files back from the store, independently of sidecar and shard."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from rocksdict import Options, Rdict

from pipeline.format.keys import parse_key
from pipeline.format.manifest import Manifest
from pipeline.format.values import MetaValue, decode_value
from pipeline.store import ObjectStore


def read_version(store: ObjectStore, manifest: Manifest) -> dict[bytes, MetaValue]:
    """Every user key of a version and its value."""
    found: dict[bytes, MetaValue] = {}
    with TemporaryDirectory(prefix="redkv-read-") as folder:
        for index, file in enumerate(manifest.files):
            path = Path(folder) / f"{index}.sst"
            path.write_bytes(store.get(file.object_key).data)
            database = Rdict(f"{folder}/{index}", Options(raw_mode=True))
            database.ingest_external_file([str(path)])
            for key, value in database.items():
                assert isinstance(key, bytes)
                found[parse_key(key).user_key] = decode_value(value)
            database.close()
    return found
