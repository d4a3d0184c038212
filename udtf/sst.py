"""Writing one SST file and proving it.

As leveldb builds a table: write → finish → reopen and read everything back → only then is it a file. Every key must come back, in its
place. Values lie in the same blocks, whose checksums RocksDB verifies; whoever loads the file compares its content digest, which was taken
before RocksDB saw an entry.
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

import pyarrow as pa

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
    """One file while it is written. Keys must grow strictly over all calls of `add`. They stay in memory until the file is proven."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_bytes = 0
        self._keys: list[pa.Array] = []
        self._metas = self._deletes = 0
        self._digest = ContentDigest()
        self._writer = sst_writer(path)

    @property
    def largest(self) -> bytes:
        """The last key so far."""
        return self._keys[-1][-1].as_py()  # type: ignore[no-any-return]  # pyarrow has no types

    def add(self, entries: EntryBatch) -> None:
        """Append entries.

        Raises:
            IntegrityError: RocksDB refused one, most likely because keys do not grow.
        """
        try:
            for keys, values in zip(_lists(entries.keys), _lists(entries.values), strict=True):
                deque(map(setitem, repeat(cast("Any", self._writer)), keys, values), maxlen=0)  # the loop runs in C
        except Exception as refused:  # rocksdict raises bare Exception
            raise IntegrityError(f"RocksDB refused an entry of {self.path.name}: {refused}", file=self.path.name) from refused
        self._keys.append(_copied(entries.keys))
        self._metas += int((entries.is_meta & ~entries.is_delete).sum())
        self._deletes += int(entries.is_delete.sum())
        self.raw_bytes += entries.raw_bytes
        self._digest.update_buffers(entries.lengths.tobytes(), data_of(entries.keys), data_of(entries.values))

    def finish(self) -> FileFacts:
        """Close the file and read it back.

        Raises:
            CountMismatchError, IntegrityError: what was read is not what was written.
        """
        self._writer.finish()
        facts = FileFacts(
            path=self.path,
            smallest=self._keys[0][0].as_py(),
            largest=self.largest,
            keys=self._metas,
            entries=sum(map(len, self._keys)) - self._deletes,
            deletes=self._deletes,
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
                found = chain(reader.keys(), repeat(None))
                for keys in chain.from_iterable(map(_lists, self._keys)):
                    if not all(map(eq, keys, found)):  # one by one: a key that is gone makes room for the next
                        raise IntegrityError(f"{self.path.name} reads back other keys than were written", file=self.path.name)


def _lists(column: pa.Array) -> Iterator[list[bytes]]:
    """What a column holds as Python's own, a little at a time."""
    for first in range(0, len(column), LISTED):
        yield column.slice(first, LISTED).to_pylist()


def _copied(column: pa.Array) -> pa.Array:
    """A column by itself: a slice would keep all that it was cut from, values and all."""
    return pa.concat_arrays([column, column.slice(0, 0)])


def _sha256(path: Path) -> str:
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()
