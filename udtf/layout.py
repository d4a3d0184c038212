"""Building binary columns from numbers and parts: the few Arrow tricks that the encoder stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Part: TypeAlias = pa.Array | pa.Scalar
"""A binary column, or the same bytes for every row."""


def constant(raw: bytes) -> pa.Scalar:
    """The same bytes for every row."""
    return pa.scalar(raw, pa.binary())


def join(parts: Sequence[Part], *, skip_nulls: bool = False) -> pa.Array:
    """Parts end to end, row by row. A NULL part makes the row NULL, or is left out with `skip_nulls`."""
    return pc.binary_join_element_wise(*parts, constant(b""), null_handling="skip" if skip_nulls else "emit_null")


def fixed(rows: npt.NDArray[Any]) -> pa.Array:
    """One row of bytes per row of a two-dimensional array of any number type."""
    flat = np.ascontiguousarray(rows)
    width = flat.shape[1] * flat.itemsize
    offsets = np.arange(len(flat) + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.binary(), len(flat), [None, pa.py_buffer(offsets), pa.py_buffer(flat)])


def ragged(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> pa.Array:
    """Consecutive `values` as bytes, `counts[i]` of them for row i."""
    ends = np.concatenate(([0], np.cumsum(counts))) * values.itemsize
    return pa.Array.from_buffers(
        pa.binary(), len(counts), [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(values))]
    )


def decimal_lengths(column: pa.Array) -> pa.Array:
    """The length of every value, as decimal text."""
    return pc.binary_length(column).cast(pa.string()).cast(pa.binary())


def offsets_of(column: pa.Array) -> npt.NDArray[np.int32]:
    """Where each value of a binary column begins in its data, and where the last one ends."""
    return np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
