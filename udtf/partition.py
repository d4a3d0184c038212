"""One sorted slot partition becomes files in the object store.

Rules:
- Rows come sorted by internal key, for sorted sets by (internal key, score, member). A file is cut only between keys.
- Counter rows (an empty internal key) sort first: they carry the encoders' counts, or an encoder's failure, beside the data through the
  shuffle, where a repeated task repeats them together with its rows.
- A file is uploaded under a name that no other attempt has, after it was read back; its local copy goes, whatever happens.
- Results and failures leave as records, so that Spark hands on only those of committed tasks. A failure of the data is final at once; any
  other (store, disk) fails the attempt, so that Spark repeats it, and becomes a record only when no attempt is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from uuid import uuid4

import pyarrow as pa
from pyspark import TaskContext

from pipeline.format.errors import CollectionTooLargeError, DataError, DuplicateKeyError, RedkvError
from pipeline.format.keys import Kind, parse_key, parse_sortable_score
from pipeline.format.layout import sst_key
from pipeline.format.manifest import ManifestFile, ManifestSample
from pipeline.format.records import Record
from pipeline.format.slots import SlotRange
from pipeline.format.values import PACKED_BYTES_MAX, PACKED_ENTRIES_MAX, SCORE_BYTES, canonical_reply, encode_zset, expiry_ms
from pipeline.store import ObjectStore
from udtf.sst import FileFacts, SstFile

FILE_RAW_BYTES = 64 << 20  # cut a file at so many bytes before compression: small enough to repeat, large enough to list
SAMPLES_PER_FILE = 4
SAMPLE_LIFE_MS = 24 * 3600 * 1000  # a sample must still be there when it is read back, after a load that took long or was repeated

COUNTER_KEY = b""


class Counters(Record):
    """What one encoder task saw: rows read, and rows that a rule skipped."""

    rows: int
    skipped: int


class Written(Record):
    """What one partition task did: its file, or the counters that came its way, or a failure (`RedkvError.to_json`)."""

    file: ManifestFile | None = None
    samples: tuple[ManifestSample, ...] = ()
    rows: int = 0
    counters: Counters | None = None
    failure: dict[str, object] | None = None


WRITTEN_DDL = "written string"
WRITTEN_SCHEMA = pa.schema([("written", pa.string())])


class Uploads(Protocol):
    """What a partition task needs of the object store."""

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Write a file under a key that nobody else uses."""


@dataclass(frozen=True, slots=True)
class PartitionTask:
    """What all partition tasks of a build share."""

    store_url: str
    dataset: str
    version: str
    build_id: str
    type: str
    slots: tuple[SlotRange, ...]
    built_at_ms: int
    zset_expiry_ms: int | None = None
    file_raw_bytes: int = FILE_RAW_BYTES
    attempts_max: int = 1
    open_store: Callable[[str], Uploads] = ObjectStore

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write one partition; one row per record."""
        for record in self.records(batches):
            yield pa.RecordBatch.from_pydict({"written": [record.model_dump_json()]}, schema=WRITTEN_SCHEMA)

    def records(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Written]:
        """Write one partition."""
        try:
            rows = _Rows(batches)
            yield from rows.counters()
            if rows.partition is not None:
                with TemporaryDirectory(prefix="redkv-sst-") as folder:
                    yield from self._files(rows, rows.partition, Path(folder))
        except RedkvError as failed:
            if not isinstance(failed, DataError) and self._attempt() < self.attempts_max:
                raise
            yield Written(failure=failed.to_json())

    def _attempt(self) -> int:
        """Which attempt of its task this is, from 1 on; the last one that there may be outside Spark."""
        context = TaskContext.get()
        return context.attemptNumber() + 1 if context else self.attempts_max

    def _files(self, rows: _Rows, partition: int, folder: Path) -> Iterator[Written]:
        store = self.open_store(self.store_url)
        attempt = uuid4().hex[:16]
        entries = _fold_zsets(rows.chunks(), self.zset_expiry_ms) if self.type == "zset" else _unique(rows.chunks())
        for index, cut in enumerate(self._cut(entries, folder)):
            facts = cut.file.finish()
            key = sst_key(self.dataset, self.version, self.build_id, partition, attempt, index)
            store.upload(facts.path, key, facts.sha256)
            facts.path.unlink()
            yield Written(file=self._manifest_file(facts, key), samples=tuple(cut.samples), rows=cut.rows)

    def _cut(self, entries: Iterable[Entries], folder: Path) -> Iterator[_Cut]:
        """Entries as files of the target size; each is handed out full, before the next one is opened."""
        cut: _Cut | None = None
        for keys, values, stored in entries:
            if cut is None:
                cut = _Cut(SstFile(folder / f"{uuid4().hex}.sst"), self.built_at_ms + SAMPLE_LIFE_MS)
            cut.add(keys, values, stored)
            if cut.file.raw_bytes >= self.file_raw_bytes:
                yield cut
                cut = None
        if cut is not None:
            yield cut

    def _manifest_file(self, facts: FileFacts, key: str) -> ManifestFile:
        first, last = parse_key(facts.smallest).slot, parse_key(facts.largest).slot
        home = next(one for one in self.slots if first in one)
        if last not in home:
            message = f"{facts.path.name} holds slots {first} to {last}, its partition is {home.first} to {home.last}"
            raise RedkvError(message, file=facts.path.name)
        return ManifestFile(
            object_key=key,
            slots=home,
            smallest=facts.smallest,
            largest=facts.largest,
            keys=facts.entries,
            entries=facts.entries,
            deletes=0,
            bytes=facts.bytes,
            sha256=facts.sha256,
            content_digest=facts.content_digest,
        )


Chunk = tuple[list[bytes], list[bytes]]
"""Some rows in order: internal keys, and values."""

Entries = tuple[list[bytes], list[bytes], int]
"""Some entries in order, and how many table rows they store."""


@dataclass(slots=True)
class _Cut:
    """A file that grows, with its samples and the number of table rows that it stores. No sample expires before `sample_until_ms`."""

    file: SstFile
    sample_until_ms: int
    samples: list[ManifestSample] = field(default_factory=list)
    rows: int = 0

    def add(self, keys: list[bytes], values: list[bytes], stored: int) -> None:
        self.file.add(keys, values)
        self.rows += stored
        for at in range(0, len(keys), max(1, len(keys) // SAMPLES_PER_FILE)):
            expiry = expiry_ms(values[at])
            if len(self.samples) < SAMPLES_PER_FILE and (expiry is None or expiry > self.sample_until_ms):
                self.samples.append(_sample(keys[at], values[at]))


class _Rows:
    """The rows of a partition: counter rows first, then the data."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._chunks = (
            (batch.column(0)[0].as_py(), batch.column(1).to_pylist(), batch.column(2).to_pylist()) for batch in batches if batch.num_rows
        )
        self._rest: Chunk = ([], [])
        self.partition: int | None = None

    def counters(self) -> Iterator[Written]:
        """The counter rows; an encoder's failure among them is raised."""
        for partition, keys, values in self._chunks:
            taken = 0
            while taken < len(keys) and keys[taken] == COUNTER_KEY:
                record = json.loads(values[taken])
                if "error" in record:
                    raise RedkvError.from_json(record)
                yield Written(counters=Counters.model_validate(record))
                taken += 1
            if taken < len(keys):
                self.partition, self._rest = partition, (keys[taken:], values[taken:])
                return

    def chunks(self) -> Iterator[Chunk]:
        """The data rows."""
        yield self._rest
        for _, keys, values in self._chunks:
            yield keys, values


def _unique(chunks: Iterable[Chunk]) -> Iterator[Entries]:
    """Strings and hashes: every row is an entry, every key must be there once."""
    last = b""
    for keys, values in chunks:
        if keys[0] == last or len(set(keys)) != len(keys):
            raise _duplicates([last, *keys])
        last = keys[-1]
        yield keys, values, len(keys)


def _duplicates(keys: list[bytes]) -> DuplicateKeyError:
    twice = sorted({parse_key(one).user_key.decode(errors="backslashreplace") for one, after in pairwise(keys) if one == after})
    shown = ", ".join(twice[:5])
    message = f"several rows give the same key, for instance {shown}: make the key template unique per row, or deduplicate the table first"
    return DuplicateKeyError(message, keys=twice[:5])


def _fold_zsets(chunks: Iterable[Chunk], expiry: int | None) -> Iterator[Entries]:
    """Sorted sets: consecutive rows of one key become one packed value."""
    rows = (row for keys, values in chunks for row in zip(keys, values, strict=True))
    for key, group in groupby(rows, key=itemgetter(0)):
        members = [(rank[SCORE_BYTES:], parse_sortable_score(rank[:SCORE_BYTES])) for rank in _bounded(key, map(itemgetter(1), group))]
        if len({member for member, _ in members}) != len(members):
            raise _duplicate_members(key, [member for member, _ in members])
        value = encode_zset(members, expiry)
        if len(value) > PACKED_BYTES_MAX:
            raise _too_large(key)
        yield [key], [value], len(members)


def _bounded(key: bytes, ranks: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for count, rank in enumerate(ranks, 1):
        size += len(rank)
        if count > PACKED_ENTRIES_MAX or size > PACKED_BYTES_MAX:
            raise _too_large(key)
        yield rank


def _too_large(key: bytes) -> CollectionTooLargeError:
    name = parse_key(key).user_key.decode(errors="backslashreplace")
    message = (
        f"the sorted set {name} has more than {PACKED_ENTRIES_MAX} members or {PACKED_BYTES_MAX} bytes, the most that one value "
        f"holds: use a key template that spreads it, or filter its rows"
    )
    return CollectionTooLargeError(message, key=name)


def _duplicate_members(key: bytes, members: list[bytes]) -> DuplicateKeyError:
    name = parse_key(key).user_key.decode(errors="backslashreplace")
    seen: set[bytes] = set()
    twice = next(member for member in members if member in seen or seen.add(member))  # type: ignore[func-returns-value]
    shown = twice.decode(errors="backslashreplace")
    message = (
        f"several rows give the member {shown} of the sorted set {name}: make the member template unique per row, or deduplicate first"
    )
    return DuplicateKeyError(message, key=name, member=shown)


def _sample(key: bytes, value: bytes) -> ManifestSample:
    parsed = parse_key(key)
    if parsed.kind is not Kind.META:
        raise RedkvError(f"a sample must be a meta, not {parsed}")
    return ManifestSample(key=parsed.user_key, reply_sha256=hashlib.sha256(canonical_reply(value)).hexdigest())
