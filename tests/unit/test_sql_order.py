"""The order that redkv_bulk_load asks of its rows."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import DataError
from udtf.sql import check_order

ROWS = st.lists(st.tuples(st.binary(max_size=2), st.none() | st.integers(0, 3)), min_size=1, max_size=8)


def nulls_first(row: tuple[bytes, int | None]) -> tuple[bytes, bool, int]:
    return row[0], row[1] is not None, row[1] or 0


@given(ROWS, st.integers(0, 8))
def test_exactly_unsorted_rows_are_refused(rows: list[tuple[bytes, int | None]], at: int) -> None:
    schema = pa.schema([("ikey", pa.binary()), ("last_by", pa.int64())])
    listed = [{"ikey": key, "last_by": by} for key, by in rows]
    batches = [pa.RecordBatch.from_pylist(part, schema=schema) for part in (listed[:at], listed[at:])]
    if rows == sorted(rows, key=nulls_first):
        check_order(batches, ("ikey", "last_by"))
    else:
        with pytest.raises(DataError, match=r"PARTITION BY partition ORDER BY \(ikey, last_by\)"):
            check_order(batches, ("ikey", "last_by"))
