"""The manifest: what one finished version consists of.

Rules:
- It is written last, by conditional create, and never changed. What no manifest names is garbage.
- It lists only files of committed task attempts, sorted by smallest key; files do not overlap.
- Its totals add up: `source_rows = stored_rows + duplicates + skipped`, and keys, entries, deletes and bytes are the sums over files.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import model_validator

from pipeline.format.records import HexBytes, Record, VersionedRecord
from pipeline.format.slots import SlotRange


class ManifestFile(Record):
    """One SST file.

    `object_key` is relative to the store's root. `slots` are those of `smallest` and `largest`, which are internal keys; several files
    may have parts of one slot. `keys` counts user keys (metas), `entries` all puts, `deletes` all tombstones. `bytes` and `sha256` are of
    the file, `content_digest` of its entries (see digest.py).
    """

    object_key: str
    slots: SlotRange
    smallest: HexBytes
    largest: HexBytes
    keys: int
    entries: int
    deletes: int
    bytes: int
    sha256: str
    content_digest: str


class ManifestSample(Record):
    """One sampled user key, the SHA-256 of its expected reply (`values.canonical_reply`), and when it expires, if it does."""

    key: HexBytes
    reply_sha256: str
    expires_at_ms: int | None = None


class Totals(Record):
    """Sums over the whole version; a stored row is a key, or for collections made of rows, one element."""

    source_rows: int
    stored_rows: int
    duplicates: int
    skipped: int
    keys: int
    entries: int
    deletes: int
    bytes: int


class Manifest(VersionedRecord):
    """One finished version of one dataset.

    `built_at_ms` (milliseconds since the epoch) is the zero of relative expiry times. `spec` is the dataset spec as loaded.
    """

    dataset: str
    version: str
    build_id: str
    built_at_ms: int
    prefix: str
    type: Literal["string", "hash", "zset"]
    mode: Literal["replace"]
    spec: dict[str, Any]
    totals: Totals
    files: tuple[ManifestFile, ...]
    samples: tuple[ManifestSample, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        total = self.totals
        if total.source_rows != total.stored_rows + total.duplicates + total.skipped:
            raise ValueError(f"totals do not add up: {total!r}")
        for name in ("keys", "entries", "deletes", "bytes"):
            summed = sum(getattr(one, name) for one in self.files)
            if summed != getattr(total, name):
                raise ValueError(f"files hold {summed} {name}, totals say {getattr(total, name)}")
        for before, after in pairwise(self.files):
            if before.largest >= after.smallest:
                raise ValueError(f"files {before.object_key} and {after.object_key} overlap or are out of order")
        return self
