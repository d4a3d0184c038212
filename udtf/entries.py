"""Entries in the order of their internal keys, as columns: what goes into a file without Python looking at every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.format.digest import DELETED
from pipeline.format.keys import KIND_AT, Kind
from udtf.layout import offsets_of

_META = int(Kind.META)


@dataclass(frozen=True)
class EntryBatch:
    """Some entries, at least one: two binary columns without NULLs, of which `keys` grows strictly. A meta without a value is a delete;
    `gone`: all of them are, whatever their kind.
    """

    keys: pa.Array
    values: pa.Array
    gone: bool = False

    @classmethod
    def of(cls, keys: Sequence[bytes], values: Sequence[bytes], *, gone: bool = False) -> EntryBatch:
        """Entries from Python's own lists."""
        return cls(pa.array(keys, pa.binary()), pa.array(values, pa.binary()), gone)

    def __len__(self) -> int:
        return len(self.keys)

    def slice(self, first: int, end: int) -> EntryBatch:
        """The entries from `first` to before `end`."""
        return (
            self
            if (first, end) == (0, len(self))
            else EntryBatch(self.keys.slice(first, end - first), self.values.slice(first, end - first), self.gone)
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
        both[self.is_delete, 1] = DELETED
        return both

    @property
    def raw_bytes(self) -> int:
        """All keys and values together."""
        return sum(int(offsets_of(column)[-1] - offsets_of(column)[0]) for column in (self.keys, self.values))

    @cached_property
    def is_meta(self) -> npt.NDArray[np.bool_]:
        """Which entries are metas."""
        data = np.frombuffer(self.keys.buffers()[2], np.uint8)
        return np.equal(data[offsets_of(self.keys)[:-1] + KIND_AT], _META)

    @cached_property
    def is_delete(self) -> npt.NDArray[np.bool_]:
        """Which entries delete their key."""
        if self.gone:
            return np.ones(len(self), np.bool_)
        return self.is_meta & np.equal(np.diff(offsets_of(self.values)), 0)


def data_of(column: pa.Array) -> memoryview:
    """The bytes of a binary column, end to end."""
    offsets = offsets_of(column)
    return memoryview(column.buffers()[2]).cast("B")[offsets[0] : offsets[-1]]
