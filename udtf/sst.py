"""Writing one SST file and proving it.

As leveldb builds a table: write → finish → reopen and read everything back → only then is it a file.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.format.digest import ContentDigest
from pipeline.format.errors import CountMismatchError, IntegrityError
from udtf.rocks import entries_of_sst, sst_writer

BATCH_ENTRIES = 4096  # entries read back at a time


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a finished file holds; `keys` counts metas, `sha256` and `bytes` are of the file, `content_digest` of its entries."""

    path: Path
    smallest: bytes
    largest: bytes
    keys: int
    entries: int
    bytes: int
    sha256: str
    content_digest: str


class SstFile:
    """One file while it is written. Keys must grow strictly over all calls of `add`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_bytes = 0
        self.entries = 0
        self.keys = 0
        self._smallest = b""
        self._largest = b""
        self._digest = ContentDigest()
        self._writer = sst_writer(path)

    def add(self, keys: Sequence[bytes], values: Sequence[bytes], metas: int) -> None:
        """Append entries, `metas` of which are metas.

        Raises:
            IntegrityError: RocksDB refused one, most likely because keys do not grow.
        """
        try:
            deque(map(self._writer.__setitem__, keys, values), maxlen=0)  # the loop runs in C
        except Exception as refused:  # rocksdict raises bare Exception
            raise IntegrityError(f"RocksDB refused an entry of {self.path.name}: {refused}", file=self.path.name) from refused
        if not self.entries:
            self._smallest = keys[0]
        self._largest = keys[-1]
        self.entries += len(keys)
        self.keys += metas
        self.raw_bytes += sum(map(len, keys)) + sum(map(len, values))
        self._digest.update(keys, values)

    def finish(self) -> FileFacts:
        """Close the file and read it back.

        Raises:
            CountMismatchError, IntegrityError: what was read is not what was written.
        """
        self._writer.finish()
        facts = FileFacts(
            path=self.path,
            smallest=self._smallest,
            largest=self._largest,
            keys=self.keys,
            entries=self.entries,
            bytes=self.path.stat().st_size,
            sha256=_sha256(self.path),
            content_digest=self._digest.hexdigest(),
        )
        _read_back(facts)
        return facts


def _read_back(facts: FileFacts) -> None:
    digest, entries = ContentDigest(), 0
    first = last = b""
    with TemporaryDirectory(dir=facts.path.parent, prefix="check-") as folder:
        link = Path(folder) / facts.path.name
        os.link(facts.path, link)
        rest = entries_of_sst(link, Path(folder) / "db")
        while batch := list(islice(rest, BATCH_ENTRIES)):
            keys, values = zip(*batch, strict=True)
            digest.update(keys, values)
            first, last, entries = first or keys[0], keys[-1], entries + len(keys)
    if entries != facts.entries:
        message = f"{facts.path.name} reads back {entries} entries, {facts.entries} were written"
        raise CountMismatchError(message, file=facts.path.name, found=entries, promised=facts.entries)
    if (first, last, digest.hexdigest()) != (facts.smallest, facts.largest, facts.content_digest):
        raise IntegrityError(f"{facts.path.name} reads back other entries than were written", file=facts.path.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()
