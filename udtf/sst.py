"""Writing one SST file and proving it.

As leveldb builds a table: write → finish → reopen and read everything back → only then is it a file.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from operator import eq, setitem
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pipeline.format.digest import ContentDigest
from pipeline.format.errors import CountMismatchError, IntegrityError
from udtf.entries import EntryBatch, data_of
from udtf.rocks import SstReader, sst_writer

LISTED = 2048  # entries that are Python objects at a time: so few stay in the processor's cache, and cost a quarter less


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a finished file holds; `keys` counts metas, `entries` what is put, `deletes` the rest, `sha256` and `bytes` are of the file,
    `content_digest` of its entries.
    """

    path: Path
    smallest: bytes
    largest: bytes
    keys: int
    entries: int
    deletes: int
    bytes: int
    sha256: str
    content_digest: str


class SstFile:
    """One file while it is written. Keys must grow strictly over all calls of `add`. What it holds stays in memory until it is proven."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_bytes = 0
        self._batches: list[EntryBatch] = []
        self._digest = ContentDigest()
        self._writer = sst_writer(path)

    @property
    def largest(self) -> bytes:
        """The last key so far."""
        return self._batches[-1].largest

    def add(self, entries: EntryBatch) -> None:
        """Append entries.

        Raises:
            IntegrityError: RocksDB refused one, most likely because keys do not grow.
        """
        try:
            for pair in _lists(entries):
                deque(map(setitem, repeat(cast("Any", self._writer)), *pair), maxlen=0)  # the loop runs in C
        except Exception as refused:  # rocksdict raises bare Exception
            raise IntegrityError(f"RocksDB refused an entry of {self.path.name}: {refused}", file=self.path.name) from refused
        self._batches.append(entries)
        self.raw_bytes += entries.raw_bytes
        self._digest.update_buffers(entries.lengths.tobytes(), data_of(entries.keys), data_of(entries.values))

    def finish(self) -> FileFacts:
        """Close the file and read it back.

        Raises:
            CountMismatchError, IntegrityError: what was read is not what was written.
        """
        self._writer.finish()
        deletes = sum(int(batch.is_delete.sum()) for batch in self._batches)
        facts = FileFacts(
            path=self.path,
            smallest=self._batches[0].smallest,
            largest=self.largest,
            keys=sum(int((batch.is_meta & ~batch.is_delete).sum()) for batch in self._batches),
            entries=sum(map(len, self._batches)) - deletes,
            deletes=deletes,
            bytes=self.path.stat().st_size,
            sha256=_sha256(self.path),
            content_digest=self._digest.hexdigest(),
        )
        self._read_back(facts)
        return facts

    def _read_back(self, facts: FileFacts) -> None:
        with TemporaryDirectory(dir=self.path.parent, prefix="check-") as folder:
            link = Path(folder) / self.path.name
            os.link(self.path, link)
            with SstReader(link, Path(folder) / "db") as reader:
                if (reader.smallest, reader.largest) != (facts.smallest, facts.largest):
                    raise IntegrityError(f"{self.path.name} has another first or last key than was written", file=self.path.name)
                written_entries = facts.entries + facts.deletes
                if reader.entries != written_entries:
                    message = f"{self.path.name} reads back {reader.entries} entries, {written_entries} were written"
                    raise CountMismatchError(message, file=self.path.name, found=reader.entries, promised=written_entries)
                entries = chain(reader.items(), repeat(None))
                for keys, values in chain.from_iterable(map(_lists, self._batches)):
                    if not all(map(eq, zip(keys, values, strict=True), entries)):  # one by one: a pair that is gone makes room for the next
                        raise IntegrityError(f"{self.path.name} reads back other entries than were written", file=self.path.name)


def _lists(entries: EntryBatch) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Keys and values as Python's own, a few at a time."""
    for first in range(0, len(entries), LISTED):
        some = entries.slice(first, min(first + LISTED, len(entries)))
        yield some.keys.to_pylist(), some.values.to_pylist()


def _sha256(path: Path) -> str:
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()
