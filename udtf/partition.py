"""One task's sorted rows become files in the object store.

Rules:
- Rows come sorted (`RowSchema.sort_columns`) and are folded to entries; a file is cut at its target size, and at every fence.
- Counter rows sort first: they carry the encoders' counts, or an encoder's failure, beside the data through the shuffle, where a repeated
  task repeats them together with its rows.
- A file is uploaded under a name that no other attempt has, after it was read back; its local copy goes, whatever happens.
- Results and failures leave as records, so that Spark hands on only those of committed tasks. A failure of the data is final at once; any
  other (store, disk) fails the attempt, so that Spark repeats it, and becomes a record only when no attempt is left.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from pipeline.format.errors import DataError, RedkvError
from pipeline.format.keys import parse_key
from pipeline.format.layout import sst_key
from pipeline.format.manifest import ManifestFile, ManifestSample
from pipeline.format.records import HexBytes, Record
from pipeline.format.slots import SlotRange
from pipeline.format.values import Flag, canonical_reply, expiry_ms
from pipeline.store import ObjectStore
from udtf.entries import EntryBatch
from udtf.fold import Chunk, ElementFold, Tally, fold_rows
from udtf.placement import Placement
from udtf.rocks import Scratch
from udtf.rows import COUNTER_KEY, ELEMENT, IKEY, PARTITION, VALUE, Counters
from udtf.sst import FileFacts, SstFile

FILE_RAW_BYTES = 64 << 20  # cut a file at so many bytes before compression: small enough to repeat, large enough to list
SAMPLES_PER_FILE = 4


class SplitCount(Record):
    """How many elements of one split key a task wrote: fields or members, and ranks."""

    user_key: HexBytes
    elements: int
    ranks: int


class Folded(Record):
    """What became of one task's rows."""

    task: int
    stored: int
    duplicates: int
    deleted: int
    splits: tuple[SplitCount, ...] = ()


class Written(Record):
    """What one task did, one field at a time: a file with its samples; the counters that came its way; its sums; or a failure
    (`RedkvError.to_json`).
    """

    file: ManifestFile | None = None
    samples: tuple[ManifestSample, ...] = ()
    counters: Counters | None = None
    folded: Folded | None = None
    failure: dict[str, object] | None = None


WRITTEN_DDL = "written string"
WRITTEN_SCHEMA = pa.schema([("written", pa.string())])


class Uploads(Protocol):
    """What a task needs of the object store."""

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Write a file under a key that nobody else uses."""


@dataclass(frozen=True)
class PartitionTask:
    """What all tasks of a build share. `expiry_ms` is of collections made of rows; other values bring theirs. `last`: settle duplicates."""

    store_url: str
    dataset: str
    version: str
    build_id: str
    placement: Placement
    expiry_ms: int | None = None
    last: bool = False
    file_raw_bytes: int = FILE_RAW_BYTES
    attempts_max: int = 1
    open_store: Callable[[str], Uploads] = ObjectStore

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write one task's files; one row per record."""
        for record in self.records(batches):
            yield pa.RecordBatch.from_pydict({"written": [record.model_dump_json()]}, schema=WRITTEN_SCHEMA)

    def records(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Written]:
        """Write one task's files."""
        try:
            rows = _Rows(batches)
            yield from rows.counters()
            if rows.task is not None:
                with TemporaryDirectory(prefix="redkv-sst-") as folder:
                    yield from self._files(rows, rows.task, Path(folder))
        except RedkvError as failed:
            if not isinstance(failed, DataError) and self._attempt() < self.attempts_max:
                raise
            yield Written(failure=failed.to_json())

    def _attempt(self) -> int:
        """Which attempt of its task this is, from 1 on; the last one that there may be outside Spark."""
        context = TaskContext.get()
        return context.attemptNumber() + 1 if context else self.attempts_max

    def _files(self, rows: _Rows, task: int, folder: Path) -> Iterator[Written]:
        attempt = uuid4().hex[:16]
        tally = Tally()
        store = self.open_store(self.store_url)
        with Scratch(folder / "scratch") as scratch:
            for index, cut in enumerate(self._cuts(self._entries(rows, tally, scratch), folder)):
                yield self.upload(store, cut, sst_key(self.dataset, self.version, self.build_id, task, attempt, index))
        yield Written(folded=_folded(task, tally))

    def _entries(self, rows: _Rows, tally: Tally, scratch: Scratch) -> Iterator[EntryBatch]:
        if not rows.elements:
            return fold_rows(rows.chunks(), tally, last=self.last)
        fold = ElementFold(self.placement.kind, self.expiry_ms, self.placement.version, scratch, tally)
        return fold.entries(rows.element_rows(), last=self.last)

    def _cuts(self, entries: Iterable[EntryBatch], folder: Path) -> Iterator[Cut]:
        """Entries as files; each is handed out full, before the next one is opened."""
        fences = self.placement.fences
        cut: Cut | None = None
        for batch in entries:
            for part in _between(fences, batch):
                if cut and (cut.file.raw_bytes >= self.file_raw_bytes or _is_between(fences, cut.file.largest, part.smallest)):
                    yield cut
                    cut = None
                cut = cut or Cut(SstFile(folder / f"{uuid4().hex}.sst"))
                cut.add(part)
        if cut is not None:
            yield cut

    @staticmethod
    def upload(store: Uploads, cut: Cut, key: str) -> Written:
        """Finish a file, prove it, and bring it to the store."""
        facts = cut.file.finish()
        store.upload(facts.path, key, facts.sha256)
        facts.path.unlink()
        return Written(file=_manifest_file(facts, key), samples=tuple(cut.samples))


def _between(fences: Sequence[bytes], batch: EntryBatch) -> Iterator[EntryBatch]:
    """Entries cut so that no part reaches over a fence."""
    first = 0
    inside = fences[bisect_right(fences, batch.smallest) : bisect_right(fences, batch.largest)]
    keys = batch.keys.to_pylist() if inside else []
    for fence in inside:
        end = bisect_left(keys, fence)
        if end > first:
            yield batch.slice(first, end)
            first = end
    yield batch.slice(first, len(batch))


def _is_between(fences: Sequence[bytes], one: bytes, other: bytes) -> bool:
    return bisect_right(fences, one) != bisect_right(fences, other)


@dataclass(slots=True)
class Cut:
    """A file that grows, with its samples."""

    file: SstFile
    samples: list[ManifestSample] = field(default_factory=list)

    def add(self, entries: EntryBatch) -> None:
        """Append entries."""
        self.file.add(entries)
        metas = np.flatnonzero(entries.is_meta)
        for at in metas[:: max(1, len(metas) // SAMPLES_PER_FILE)]:
            key, value = entries.keys[int(at)].as_py(), entries.values[int(at)].as_py()
            if len(self.samples) < SAMPLES_PER_FILE and not value[1] & Flag.BIG:
                self.samples.append(_sample(key, value))


def _sample(key: bytes, value: bytes) -> ManifestSample:
    reply = hashlib.sha256(canonical_reply(value)).hexdigest()
    return ManifestSample(key=parse_key(key).user_key, reply_sha256=reply, expires_at_ms=expiry_ms(value))


def _manifest_file(facts: FileFacts, key: str) -> ManifestFile:
    return ManifestFile(
        object_key=key,
        slots=SlotRange(first=parse_key(facts.smallest).slot, last=parse_key(facts.largest).slot),
        smallest=facts.smallest,
        largest=facts.largest,
        keys=facts.keys,
        entries=facts.entries,
        deletes=0,
        bytes=facts.bytes,
        sha256=facts.sha256,
        content_digest=facts.content_digest,
    )


def _folded(task: int, tally: Tally) -> Folded:
    splits = (SplitCount(user_key=key, elements=tally.split[key], ranks=tally.split_ranks[key]) for key in tally.split | tally.split_ranks)
    return Folded(task=task, stored=tally.stored, duplicates=tally.duplicates, deleted=tally.deleted, splits=tuple(splits))


class _Rows:
    """The rows of a task: counter rows first, then the data."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = (batch for batch in batches if batch.num_rows)
        self._rest: list[pa.RecordBatch] = []
        self.task: int | None = None
        self.elements = False

    def counters(self) -> Iterator[Written]:
        """The counter rows; an encoder's failure among them is raised."""
        for batch in self._batches:
            keys, taken = batch.column(IKEY), 0
            while taken < len(keys) and keys[taken].as_py() == COUNTER_KEY:
                record = json.loads(batch.column(VALUE)[taken].as_py())
                if "error" in record:
                    raise RedkvError.from_json(record)
                yield Written(counters=Counters.model_validate(record))
                taken += 1
            if taken < len(keys):
                self.task = batch.column(PARTITION)[0].as_py()
                self.elements = ELEMENT in batch.schema.names
                self._rest = [batch.slice(taken)]
                return

    def chunks(self) -> Iterator[Chunk]:
        """Rows of one value each."""
        for batch in self._data():
            yield batch.column(IKEY), batch.column(VALUE)

    def element_rows(self) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """Rows that are elements."""
        for batch in self._data():
            yield from zip(*(batch.column(name).to_pylist() for name in (IKEY, ELEMENT, VALUE)), strict=True)

    def _data(self) -> Iterator[pa.RecordBatch]:
        yield from self._rest
        self._rest = []
        yield from self._batches
