"""The first key in which two SST files differ: `python -m ingest_sidecar.difference ORIGINAL COPY` prints the internal key in hex digits,
nothing if all entries are the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest_sidecar.rocks import VersionDatabase
from pipeline.format.errors import RedkvError


def first_difference(original: Path, copy: Path) -> bytes | None:
    """The first internal key of which the copy says something else; where the copy can't be read on, the next one of the original."""
    with (
        TemporaryDirectory(dir=original.parent) as folder,
        closing(_entries(original, Path(folder) / "original")) as built,
        closing(_entries(copy, Path(folder) / "copy")) as found,
    ):
        for entry in built:
            try:
                other = next(found, None)
            except RedkvError:
                other = None
            if other != entry:
                return min(entry[0], other[0]) if other else entry[0]
        extra = next(found, None)
        return extra[0] if extra else None


def _entries(file: Path, folder: Path) -> Generator[tuple[bytes, bytes]]:
    """The entries of one file, which RocksDB reads in a database of its own."""
    link = folder.with_suffix(".sst")
    os.link(file, link)
    with VersionDatabase(folder) as database:
        database.ingest([link])
        yield from database.entries()


if __name__ == "__main__":
    sys.stdout.write((first_difference(*map(Path, sys.argv[1:])) or b"").hex())
