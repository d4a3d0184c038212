"""The manifest: what one finished version consists of.

Rules:
- It is written last, by conditional create, and never changed. What no manifest names is garbage.
- It lists only files of committed task attempts, sorted by smallest key; files do not overlap.
- Its totals add up: `source_rows = stored_rows + duplicates + skipped + deletes`, and keys, entries, deletes and bytes are the sums over
  files. Only an `upsert` and a delta have deletes.
- A delta names the versions that it lies on, all of them down to a full one, by build and by the SHA-256 of their manifests: so it says
  of every byte what it is, though its own files hold only what differs.
- A delta's file holds puts or deletes, not both. Files of one sort do not overlap; those of both sorts may, as no key is in two of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.format.records import HexBytes, Mode, Record, VersionedRecord
from pipeline.format.slots import SlotRange

BASES_MAX = 7  # a week of nightly deltas: every one of them adds two files that a read may have to look into


class ManifestFile(Record):
    """One SST file.

    `object_key` is relative to the store's root. `slots` are those of `smallest` and `largest`, which are internal keys; several files
    may have parts of one slot. `keys` counts user keys (metas), `entries` all puts, `deletes` all deletes, which
    stand in the file as entries with an empty value (docs/format.md). `bytes` and `sha256` are of
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
    """Sums over the whole version; a stored row is a key, or for collections made of rows, one element.

    A key that goes is one of `deletes`; if several rows say so, the others are skipped ones.
    """

    source_rows: int
    stored_rows: int
    duplicates: int
    skipped: int
    keys: int
    entries: int
    deletes: int
    bytes: int


class BaseVersion(Record):
    """A version that another one lies on: its id, its build, and the SHA-256 of its manifest's bytes."""

    version: str
    build_id: str
    manifest_sha256: str


class Whole(Record):
    """What a version holds in all: user keys and entries."""

    keys: int
    entries: int


class Manifest(VersionedRecord):
    """One finished version of one dataset.

    `built_at_ms` (milliseconds since the epoch) is the zero of relative expiry times. `spec` is the dataset spec as loaded.

    Of a delta, `bases` are the versions that it lies on, the nearest first, the full one last; files and their sums are its own.
    `whole` is what it comes to with them. Then the totals count rows of all that it was compared with; without it, they count the rows of
    a table of changes, and what the version holds in all is known to the nodes alone.
    """

    FORMAT_VERSION: ClassVar[int] = 2
    NEWER: ClassVar[frozenset[str]] = frozenset({"bases", "whole"})

    dataset: str
    version: str
    build_id: str
    built_at_ms: int
    prefix: str
    type: Literal["string", "hash", "zset"]
    mode: Mode
    spec: dict[str, Any]
    totals: Totals
    files: tuple[ManifestFile, ...]
    samples: tuple[ManifestSample, ...]
    bases: tuple[BaseVersion, ...] = Field(default=(), max_length=BASES_MAX)
    whole: Whole | None = None

    @property
    def in_all(self) -> Whole | None:
        """What the version holds in all; None if only the nodes know."""
        return self.whole if self.bases else Whole(keys=self.totals.keys, entries=self.totals.entries)

    @property
    def rows_in_all(self) -> int | None:
        """The rows that it holds in all; None if only the nodes know, by keys."""
        return self.totals.stored_rows if self.in_all else None

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        total = self.totals
        deleting = 0 if self.whole else total.deletes  # what a comparison deletes are no rows
        if total.source_rows != total.stored_rows + total.duplicates + total.skipped + deleting:
            raise ValueError(f"totals do not add up: {total!r}")
        for name in ("keys", "entries", "deletes", "bytes"):
            summed = sum(getattr(one, name) for one in self.files)
            if summed != getattr(total, name):
                raise ValueError(f"files hold {summed} {name}, totals say {getattr(total, name)}")
        for sort in self.sorts():
            for before, after in pairwise(sort):
                if before.largest >= after.smallest:
                    raise ValueError(f"files {before.object_key} and {after.object_key} overlap or are out of order")
        return self

    @model_validator(mode="after")
    def _is_a_delta_or_full(self) -> Manifest:
        if self.whole and not self.bases:
            raise ValueError("only a version that lies on others says what it holds in all")
        if self.bases and self.mode != "replace":
            raise ValueError(f"a version of mode {self.mode} lies on no other")
        if self.bases and list(self.files) != sorted(self.files, key=lambda one: one.smallest):
            raise ValueError("files are out of order")
        mixed = [one.object_key for one in self.files if one.deletes and one.entries] if self.bases else []
        if mixed:
            raise ValueError(f"file {mixed[0]} of a delta has puts and deletes")
        return self

    def sorts(self) -> tuple[tuple[ManifestFile, ...], ...]:
        """The files that do not overlap, together: all of them, or a delta's puts, and its deletes."""
        if not self.bases:
            return (self.files,)
        return tuple(tuple(one for one in self.files if bool(one.deletes) is deleting) for deleting in (False, True))
