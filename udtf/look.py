"""One SST file, looked at: `python -m udtf.look FILE --first N` prints JSON. What `redkv inspect sst` runs as a process.

The file may be an SST of a build, of staging, or of a version directory; it is read, and stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.format.errors import RedkvError, UsageError
from pipeline.load.look import describe_entry, describe_key
from udtf.rocks import SstReader


def main() -> int:
    """Look, and print; the exit code."""
    parser = argparse.ArgumentParser(description="Look at one SST file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--first", type=int, default=10, help="so many of its first entries")
    arguments = parser.parse_args()
    try:
        found, code = look(arguments.file, arguments.first), 0
    except RedkvError as failed:
        found, code = {"error": failed.to_json()}, failed.exit_code
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return code


def look(file: Path, first: int) -> dict[str, Any]:
    """What a file has: how many entries, from which key to which, and the first of them.

    Raises:
        UsageError: it can't be read.
        IntegrityError: RocksDB takes it for no SST file, or for a damaged one.
    """
    with TemporaryDirectory(prefix="redkv-look-") as folder:
        link = Path(folder) / "looked-at.sst"
        try:
            _link_or_copy(file, link)
        except OSError as unreadable:
            raise UsageError(f"{file} can't be read: {unreadable}", file=str(file)) from unreadable
        size = link.stat().st_size
        with SstReader(link, Path(folder) / "database") as reader:
            return {
                "file": str(file),
                "bytes": size,
                "entries": reader.entries,
                "smallest": describe_key(reader.smallest),
                "largest": describe_key(reader.largest),
                "first": [describe_entry(key, value) for key, value in islice(reader.items(), first)],
            }


def _link_or_copy(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, link)


if __name__ == "__main__":
    sys.exit(main())
