"""Entries in the order of their internal keys, as columns: what goes into a file without Python looking at every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.keys import KIND_AT, Kind
from udtf.layout import constant, offsets_of

_META = int(Kind.META)


@dataclass(frozen=True)
class EntryBatch:
    """Some entries, at least one: two binary columns without NULLs, of which `keys` grows strictly."""

    keys: pa.Array
    values: pa.Array

    @classmethod
    def of(cls, keys: Sequence[bytes], values: Sequence[bytes]) -> EntryBatch:
        """Entries from Python's own lists."""
        return cls(pa.array(keys, pa.binary()), pa.array(values, pa.binary()))

    def __len__(self) -> int:
        return len(self.keys)

    def slice(self, first: int, end: int) -> EntryBatch:
        """The entries from `first` to before `end`."""
        return (
            self
            if (first, end) == (0, len(self))
            else EntryBatch(self.keys.slice(first, end - first), self.values.slice(first, end - first))
        )

    @property
    def smallest(self) -> bytes:
        """The first key."""
        return self.keys[0].as_py()  # type: ignore[no-any-return]  # pyarrow has no types

    @property
    def largest(self) -> bytes:
        """The last key."""
        return self.keys[-1].as_py()  # type: ignore[no-any-return]

    @cached_property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """Key and value length of every entry in turn, as the content digest takes them."""
        both = np.empty((len(self), 2), "<u4")
        both[:, 0] = np.diff(offsets_of(self.keys))
        both[:, 1] = np.diff(offsets_of(self.values))
        return both

    @property
    def raw_bytes(self) -> int:
        """All keys and values together."""
        return int(self.lengths.sum(dtype=np.int64))

    @cached_property
    def is_meta(self) -> npt.NDArray[np.bool_]:
        """Which entries are metas."""
        data = np.frombuffer(self.keys.buffers()[2], np.uint8)
        return np.equal(data[offsets_of(self.keys)[:-1] + KIND_AT], _META)

    def joined(self) -> memoryview:
        """Every key with its value behind it, end to end."""
        return data_of(pc.binary_join_element_wise(self.keys, self.values, constant(b"")))


def data_of(column: pa.Array) -> memoryview:
    """The bytes of a binary column, end to end."""
    offsets = offsets_of(column)
    return memoryview(column.buffers()[2]).cast("B")[offsets[0] : offsets[-1]]
