"""Reading files once, byte by byte or entry by entry: in pieces, so that the pace is kept between them."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

BATCH_ENTRIES = 4096  # entries digested at a time: large enough that the digest's overhead vanishes, small enough for memory
HASHED_BYTES = 1 << 20  # at a time: a millisecond, after which the pace is kept


def sha256_of(path: Path, seen: Callable[[int], None]) -> str:
    """The SHA-256 of a file, in hex digits; `seen` is told how many more bytes are read."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(HASHED_BYTES))
    with path.open("rb", buffering=0) as file:
        for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_NOREUSE):  # read ahead, and do not count as use: the cache is the readers'
            os.posix_fadvise(file.fileno(), 0, 0, advice)
        while count := file.readinto(piece):
            digest.update(piece[:count])
            seen(count)
    return digest.hexdigest()


class EntryWalk:
    """Entries in key order, in batches. All work per entry is done by C: a version has millions, and readers wait beside."""

    def __init__(self, entries: Iterator[tuple[bytes, bytes]]) -> None:
        self._entries = entries
        self._keys: tuple[bytes, ...] = ()
        self._values: tuple[bytes, ...] = ()

    @property
    def ahead(self) -> bytes | None:
        """The key of the first entry that is not yet handed out; None at the end."""
        if not self._keys and (batch := tuple(islice(self._entries, BATCH_ENTRIES))):
            self._keys, self._values = zip(*batch, strict=True)
        return self._keys[0] if self._keys else None

    def up_to(self, last: bytes | None) -> Iterator[tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        """Batches of keys and values, up to the key `last` (None: to the end)."""
        while (ahead := self.ahead) is not None and (last is None or ahead <= last):
            cut = len(self._keys) if last is None else bisect_right(self._keys, last)
            batch = self._keys[:cut], self._values[:cut]
            self._keys, self._values = self._keys[cut:], self._values[cut:]
            yield batch
