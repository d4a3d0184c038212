"""What a delta is compared with: the entries of the version that it lies on, read from the object store by the task that they belong to.

Rules:
- What counts is what stands in the base's files, not what its table has by now: they are what the nodes have.
- The versions of a chain are laid over each other as the nodes do it, and read as one.
- A task reads the files that may hold entries of its own, and of these its own entries alone (`Placement.owner`). Every file's SHA-256 is
  compared with its manifest's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from pipeline.format.errors import ChecksumMismatchError
from pipeline.format.keys import element_version
from pipeline.format.manifest import Manifest, ManifestFile
from pipeline.store import Blob, ObjectStore
from udtf.placement import Placement
from udtf.rocks import LayeredReader, SstReader

BATCH_ENTRIES = 4096  # handed on together: enough that the hand-over costs nothing, few enough for memory

Entries = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""Keys and values, in key order."""

Range = tuple[bytes, bytes | None]


class Objects(Protocol):
    """What is needed of the object store."""

    def get(self, key: str) -> Blob:
        """Read an object."""


@dataclass(frozen=True)
class Base:
    """The files of a chain, those of the full version first. `open_store` opens the store that has them."""

    store_url: str
    version: str
    layers: tuple[tuple[ManifestFile, ...], ...]
    element_version: int
    open_store: Callable[[str], Objects] = ObjectStore

    @classmethod
    def of(cls, store_url: str, chain: list[Manifest]) -> Base:
        """That of a chain of versions, the nearest first.

        Elements of large collections get the element version of the full one: so those that are as before are the same entries.
        """
        layers = tuple(one.files for one in reversed(chain))
        return cls(store_url, chain[0].version, layers, element_version(chain[-1].version))

    @contextmanager
    def entries_of(self, task: int, placement: Placement, folder: Path) -> Iterator[Iterator[Entries]]:
        """A task's own entries, in key order; `folder` is for its files, and goes with the task."""
        with self._opened(placement.ranges_of(task), folder) as found:
            plain = placement.is_plain(task)
            yield _batches(found if plain else ((key, value) for key, value in found if placement.owner(key) == task))

    def values_of(self, keys: list[bytes], folder: Path) -> dict[bytes, bytes]:
        """The values of single keys, as far as there are any."""
        with self._opened(tuple((key, key + b"\x00") for key in keys), folder) as found:
            return dict(found)

    @contextmanager
    def _opened(self, ranges: tuple[Range, ...], folder: Path) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        """The entries in some ranges, which are in order."""
        folder.mkdir()
        store = self.open_store(self.store_url)
        with LayeredReader(folder / "entries") as reader:
            for number, files in enumerate(self.layers):
                wanted = [one for one in files if any(_meet(one, some) for some in ranges)]
                brought = [(one, self._brought(store, one, folder / f"{number}-{at}.sst")) for at, one in enumerate(wanted)]
                gone = (key for one, path in brought if one.deletes for key in _keys(path, folder))
                reader.lay([path for one, path in brought if not one.deletes], gone)
            yield (entry for first, end in ranges for entry in reader.entries(first, end))

    def _brought(self, store: Objects, file: ManifestFile, path: Path) -> Path:
        data = store.get(file.object_key).data
        found = hashlib.sha256(data).hexdigest()
        if found != file.sha256:
            message = (
                f"{file.object_key} of the base {self.version} has SHA-256 {found}, its manifest says {file.sha256}: load a full version"
            )
            raise ChecksumMismatchError(message, object=file.object_key, found=found, expected=file.sha256)
        path.write_bytes(data)
        return path


def _meet(file: ManifestFile, some: Range) -> bool:
    first, end = some
    return file.largest >= first and (end is None or file.smallest < end)


def _keys(path: Path, folder: Path) -> Iterator[bytes]:
    with SstReader(path, folder / f"{path.stem}.keys") as reader:
        yield from (key for key, _ in reader.items())


def _batches(entries: Iterator[tuple[bytes, bytes]]) -> Iterator[Entries]:
    while batch := tuple(islice(entries, BATCH_ENTRIES)):
        keys, values = zip(*batch, strict=True)
        yield keys, values
