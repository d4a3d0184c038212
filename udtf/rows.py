"""The rows that Spark moves and sorts between the encoder and the writers, and the counters that travel among them.

::

    row      := [partition] ikey [element] value [order]
    ikey     := the internal key of an entry; for rows that are elements, of the meta that they belong to
    element  := the field or member of a row that is one of many of its key; empty where `ikey` names the element itself (split keys)
    value    := a meta value; for elements, a field's value or a sortable score; NULL if the row marks a delete, or a field without value
    order    := the column of on_duplicate.last_by, as it is
    counters := a row with an empty ikey: it sorts first, and carries as JSON what one encoder task counted, or how it failed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from pipeline.format.records import Record

COUNTER_KEY = b""

PARTITION, IKEY, ELEMENT, VALUE, ORDER = "partition", "ikey", "element", "value", "last_by"


class Counters(Record):
    """What one encoder task saw: rows read, rows that a rule skipped, and duplicates that were settled before the writers."""

    rows: int
    skipped: int
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class RowSchema:
    """Which columns a dataset's rows have. `order_ddl` and `order_type` name its last_by column's type in Spark's and Arrow's words."""

    elements: bool
    order_ddl: str | None = None
    order_type: pa.DataType | None = None

    @property
    def ddl(self) -> str:
        """The columns in Spark's words, without the partition."""
        columns = [f"{IKEY} binary", *([f"{ELEMENT} binary"] if self.elements else ()), f"{VALUE} binary"]
        return ", ".join(columns + ([f"{ORDER} {self.order_ddl}"] if self.order_ddl else []))

    @property
    def placed_ddl(self) -> str:
        """The same with the partition in front."""
        return f"{PARTITION} int, {self.ddl}"

    @property
    def sort_columns(self) -> tuple[str, ...]:
        """In which order a writer needs its rows: of several rows for the same, the one that stands comes last."""
        return (IKEY, *((ELEMENT,) if self.elements else ()), *((ORDER, VALUE) if self.order_ddl else ()))

    @property
    def arrow(self) -> pa.Schema:
        """The columns in Arrow's words, without the partition."""
        columns = [(name, pa.binary()) for name in (IKEY, *((ELEMENT,) if self.elements else ()), VALUE)]
        return pa.schema(columns + ([(ORDER, self.order_type)] if self.order_ddl else []))

    @property
    def placed_arrow(self) -> pa.Schema:
        """The same with the partition in front."""
        return self.arrow.insert(0, pa.field(PARTITION, pa.int32()))

    def counter_row(self, note: str) -> pa.RecordBatch:
        """The row that carries a task's counters, or its failure. Its element is the task's number: no other task has it, so nothing groups
        two of them, and every attempt of this one has it, so none is shuffled elsewhere.
        """
        context = TaskContext.get()
        element = (context.partitionId() if context else 0).to_bytes(4)
        row: dict[str, list[Any]] = {IKEY: [COUNTER_KEY], ELEMENT: [element], VALUE: [note.encode()], ORDER: [None]}
        return pa.RecordBatch.from_pydict({name: row[name] for name in self.arrow.names}, schema=self.arrow)
