"""One task's sorted rows become files in the object store.

Rules:
- Rows come sorted (`RowSchema.sort_columns`) and are folded to entries; a file is cut at its target size, and at every fence. It is also
  cut where a shard of the cluster begins, unless it is too small: a shard links a file of its own, and writes its part of another anew.
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
from typing import Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from pipeline.format.errors import DataError, RedkvError
from pipeline.format.keys import parse_key, slot_bounds
from pipeline.format.layout import sst_key
from pipeline.format.manifest import ManifestFile, ManifestSample, Whole
from pipeline.format.records import HexBytes, Record
from pipeline.format.slots import SlotRange
from pipeline.format.values import Flag, canonical_reply, expiry_ms
from pipeline.store import ObjectStore
from udtf.base import Base
from udtf.difference import Difference, Parts, apart
from udtf.entries import EntryBatch
from udtf.fold import Chunk, ElementFold, Tally, fold_rows
from udtf.folders import task_folder
from udtf.placement import Placement
from udtf.rocks import Scratch
from udtf.rows import COUNTER_KEY, ELEMENT, IKEY, PARTITION, VALUE, Counters
from udtf.sst import FileFacts, SstFile

SHARD_FILE_RAW_BYTES_MIN = 1 << 20  # below that, a file of its own costs the store more than the shards that share one
FILE_RAW_BYTES = 64 << 20  # cut a file at so many bytes before compression: small enough to repeat, large enough to list
SAMPLES_PER_FILE = 4
UNCHANGED_SAMPLES = 16  # per task of a delta, beside those of its files


class SplitCount(Record):
    """How many elements of one split key a task wrote: fields or members, and ranks."""

    user_key: HexBytes
    elements: int
    ranks: int


class Folded(Record):
    """What became of one task's rows; of a delta that was compared, `whole` is what the version holds in all."""

    task: int
    stored: int
    duplicates: int
    deleted: int
    whole: Whole | None = None
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
    """What all tasks of a build share. `expiry_ms` is of collections made of rows; other values bring theirs. `last`: settle duplicates;
    `deletes`: keep what removes a key. A `delta` has files of puts and files of deletes; with a `base`, what differs from that, else all of
    a table of changes. `shard_borders`: the slots where shards begin, as far as anybody knows.
    """

    store_url: str
    dataset: str
    version: str
    build_id: str
    placement: Placement
    expiry_ms: int | None = None
    last: bool = False
    deletes: bool = False
    delta: bool = False
    base: Base | None = None
    shard_borders: tuple[int, ...] = ()
    file_raw_bytes: int = FILE_RAW_BYTES
    shard_file_raw_bytes_min: int = SHARD_FILE_RAW_BYTES_MIN
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
            task = rows.task if rows.task is not None or self.base is None else rows.anchor  # what the base has must go, if no row is left
            if task is not None:
                with task_folder("redkv-sst-") as folder:
                    yield from self._files(rows, task, Path(folder))
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
            entries = self._entries(rows, tally, scratch)
            cuts = self._cuts(entries, folder) if not self.delta else self._delta_cuts(entries, task, tally, folder)
            for index, cut in enumerate(cuts):
                yield self.upload(store, cut, sst_key(self.dataset, self.version, self.build_id, task, attempt, index))
        yield Written(folded=_folded(task, tally), samples=self._of_difference(tally))

    def _delta_cuts(self, entries: Iterable[EntryBatch], task: int, tally: Tally, folder: Path) -> Iterator[Cut]:
        """What differs, as files: of each sort one is open at a time."""
        if self.base is None:
            yield from self._apart_cuts(apart(entries), folder)
            return
        with self.base.entries_of(task, self.placement, folder / "base") as before:
            tally.difference = difference = Difference(before)
            yield from self._apart_cuts(difference.of(entries), folder)

    def _apart_cuts(self, parts: Iterable[Parts], folder: Path) -> Iterator[Cut]:
        sorts = self._cutting(folder), self._cutting(folder)
        for both in parts:
            for sort, part in zip(sorts, both, strict=True):
                if part is not None:
                    yield from sort.add(part)
        for sort in sorts:
            yield from sort.end()

    def _cutting(self, folder: Path) -> _Cutting:
        return _Cutting(self, folder)

    def _of_difference(self, tally: Tally) -> tuple[ManifestSample, ...]:
        """Some keys that are as in the base: they are read as well, so that what is laid over shows what it covers."""
        found = tally.difference.unchanged if tally.difference else []
        small = [(key, value) for key, value in found if not value[1] & Flag.BIG]
        return tuple(_sample(key, value) for key, value in small[:: max(1, len(small) // UNCHANGED_SAMPLES)][:UNCHANGED_SAMPLES])

    def _entries(self, rows: _Rows, tally: Tally, scratch: Scratch) -> Iterator[EntryBatch]:
        if not rows.elements:
            return fold_rows(rows.chunks(), tally, last=self.last, deletes=self.deletes)
        fold = ElementFold(self.placement.kind, self.expiry_ms, self.placement.version, scratch, tally, deletes=self.deletes)
        return fold.entries(rows.element_rows(), last=self.last)

    def _cuts(self, entries: Iterable[EntryBatch], folder: Path) -> Iterator[Cut]:
        """Entries as files."""
        cutting = self._cutting(folder)
        for batch in entries:
            yield from cutting.add(batch)
        yield from cutting.end()

    @staticmethod
    def upload(store: Uploads, cut: Cut, key: str) -> Written:
        """Finish a file, prove it, and bring it to the store."""
        facts = cut.file.finish()
        store.upload(facts.path, key, facts.sha256)
        facts.path.unlink()
        return Written(file=_manifest_file(facts, key), samples=tuple(cut.samples))


class _Cutting:
    """Entries as files; each is handed out full, before the next one is opened."""

    def __init__(self, task: PartitionTask, folder: Path) -> None:
        self._task, self._folder = task, folder
        self._fences, self._borders = task.placement.fences, [slot_bounds(slot, slot)[0] for slot in task.shard_borders]
        self._all = sorted({*self._fences, *self._borders})
        self._cut: Cut | None = None

    def add(self, batch: EntryBatch) -> Iterator[Cut]:
        """Append entries; the files that they fill."""
        for part in _between(self._all, batch):
            if self._cut and self._ends(self._cut, part):
                yield self._cut
                self._cut = None
            self._cut = self._cut or Cut(SstFile(self._folder / f"{uuid4().hex}.sst"))
            self._cut.add(part)

    def end(self) -> Iterator[Cut]:
        """The last file."""
        if self._cut is not None:
            yield self._cut

    def _ends(self, cut: Cut, part: EntryBatch) -> bool:
        """Whether a file ends before these entries."""
        ends = cut.file.largest, part.smallest
        if cut.file.raw_bytes >= self._task.file_raw_bytes or _is_between(self._fences, *ends):
            return True
        return cut.file.raw_bytes >= self._task.shard_file_raw_bytes_min and _is_between(self._borders, *ends)


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
        metas = np.flatnonzero(entries.is_meta & ~entries.is_delete)
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
        deletes=facts.deletes,
        bytes=facts.bytes,
        sha256=facts.sha256,
        content_digest=facts.content_digest,
    )


def _folded(task: int, tally: Tally) -> Folded:
    splits = (SplitCount(user_key=key, elements=tally.split[key], ranks=tally.split_ranks[key]) for key in tally.split | tally.split_ranks)
    whole = tally.difference.whole if tally.difference else None
    return Folded(task=task, stored=tally.stored, duplicates=tally.duplicates, deleted=tally.deleted, whole=whole, splits=tuple(splits))


class _Rows:
    """The rows of a task: counter rows first, then the data."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = (batch for batch in batches if batch.num_rows)
        self._rest: list[pa.RecordBatch] = []
        self.task: int | None = None
        self.anchor: int | None = None  # the task, if counters are all that it gets
        self.elements = False

    def counters(self) -> Iterator[Written]:
        """The counter rows; an encoder's failure among them is raised."""
        for batch in self._batches:
            keys, taken = batch.column(IKEY), 0
            self.anchor = batch.column(PARTITION)[0].as_py()
            self.elements = ELEMENT in batch.schema.names
            while taken < len(keys) and keys[taken].as_py() == COUNTER_KEY:
                record = json.loads(batch.column(VALUE)[taken].as_py())
                if "error" in record:
                    raise RedkvError.from_json(record)
                yield Written(counters=Counters.model_validate(record))
                taken += 1
            if taken < len(keys):
                self.task = self.anchor
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
