"""Content digest: the equality of two sets of entries, whatever bytes RocksDB made of them.

SST files are not reproducible byte by byte, so two builds are compared by this digest. Three running SHA-256 take the lengths, the
keys and the values apart, which lets a builder feed whole column buffers, and makes the digest independent of how entries are batched.

::

    digest  := SHA-256( SHA-256(lengths) SHA-256(keys) SHA-256(values) )
    lengths := (key-length(u32, little-endian) value-length(u32, little-endian)) of every entry, in key order
    keys    := all internal keys, in order, end to end
    values  := all values, in the same order, end to end; a delete has the length 0xFFFFFFFF and no bytes
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from itertools import chain
from typing import cast

DELETED = 0xFFFF_FFFF  # the value length of a delete; no real value comes near it


class ContentDigest:
    """A running content digest. Feed entries in key order with `update` or `update_buffers`."""

    def __init__(self) -> None:
        self._lengths = hashlib.sha256()
        self._keys = hashlib.sha256()
        self._values = hashlib.sha256()

    def update(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Add entries; a value of None is a delete."""
        held = [value or b"" for value in values] if None in values else cast("Sequence[bytes]", values)
        sizes = list(chain.from_iterable(zip(map(len, keys), map(len, held), strict=True)))
        if held is not values:
            sizes[1::2] = [DELETED if value is None else len(value) for value in values]
        self.update_buffers(struct.pack(f"<{len(sizes)}I", *sizes), b"".join(keys), b"".join(held))

    def update_buffers(self, lengths: bytes | memoryview, keys: bytes | memoryview, values: bytes | memoryview) -> None:
        """Add entries whose lengths, keys and values are laid out already as in the grammar above."""
        self._lengths.update(lengths)
        self._keys.update(keys)
        self._values.update(values)

    def hexdigest(self) -> str:
        """The digest so far, 64 hex digits."""
        return hashlib.sha256(self._lengths.digest() + self._keys.digest() + self._values.digest()).hexdigest()
