"""The text forms of columns, vectorised: docs/types.md is the table, this is how.

Every function takes an Arrow array and gives a binary array of the same length, with the same NULLs.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.errors import DataError

_BEYOND = "<"  # Arrow writes no error but "<value out of range: ...>" for years that it can't tell


def text_of(column: pa.Array) -> pa.Array:
    """The text form of a column as bytes.

    Raises:
        DataError: a date or timestamp too far away to be told.
    """
    kind = column.type
    if pa.types.is_binary(kind):
        return column
    if pa.types.is_timestamp(kind):
        return _timestamp(column).cast(pa.binary())
    if pa.types.is_date(kind):
        return _told(column.cast(pa.string()), column).cast(pa.binary())
    if pa.types.is_decimal(kind):
        return _decimal(column).cast(pa.binary())
    return column.cast(pa.string()).cast(pa.binary())


def _timestamp(column: pa.Array) -> pa.Array:
    """ISO 8601; an instant is told in UTC with a final Z, a timestamp without time zone has none. A zero fraction is left out."""
    suffix = "Z" if column.type.tz else ""
    plain = _told(column.cast(pa.timestamp("us")).cast(pa.string()), column)
    short = pc.utf8_rtrim(pc.utf8_rtrim(plain, "0"), ".")
    return pc.binary_join_element_wise(pc.replace_substring(short, " ", "T"), suffix, "")


def _told(texts: pa.Array, column: pa.Array) -> pa.Array:
    """The texts, if Arrow could tell all of them."""
    beyond = pc.match_substring(texts, _BEYOND)
    if pc.any(beyond).as_py():
        number = column.filter(beyond)[0].value
        message = f"the {column.type} {number} (counted from 1970) lies beyond the years that have a text form: mend or filter the row"
        raise DataError(message, type=str(column.type), value=number)
    return texts


def _decimal(column: pa.Array) -> pa.Array:
    """All digits after the point, never an exponent, which Arrow writes for numbers below 1e-6."""
    texts = column.cast(pa.string())
    if not pc.any(pc.match_substring(texts, "E")).as_py():
        return texts
    return pa.array([None if number is None else format(number, "f") for number in column.to_pylist()], pa.string())
