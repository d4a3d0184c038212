"""The encoder: an Arrow batch of table rows becomes a batch of rows for the writers (`udtf.rows`), vectorised.

Rules:
- A batch is encoded as a whole; Python looks at single rows only for the CRC of their slot, and to name a row in an error.
- A rule of the spec decides about NULLs; what it skips is counted. What it forbids raises a DataError that names column and row.
- A row that makes a key alone becomes a complete meta value. Rows that are elements stay one each, so that Spark's sort brings those of
  a key together; `udtf.fold` makes collections of them. Negative zero is stored as zero: the two are equal to Redis.
- A row that the spec's `delete_if` marks keeps its key and has no value. So does a field's row whose value is NULL: whether an older row
  of the field stands is settled later.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.errors import CollectionTooLargeError, InvalidScoreError, KeyTooLongError, NullValueError
from pipeline.format.keys import ELEMENT_BYTES_MAX, USER_KEY_BYTES_MAX, Kind
from pipeline.format.slots import SLOT_COUNT, key_slot
from pipeline.format.values import PACKED_BYTES_MAX, ValueType, head
from pipeline.shapes import TTL_SECONDS_MAX
from pipeline.spec import DatasetSpec
from pipeline.template import SEPARATOR, Column, Literal, ShardNumber, Template, shard_number
from udtf.layout import Part, constant, fixed, join
from udtf.packing import heads, packed_hashes, sortable_scores, strings
from udtf.rows import ELEMENT, IKEY, ORDER, VALUE, RowSchema
from udtf.text import text_of

_SLOT_MASK = SLOT_COUNT - 1

Columns = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded batch, how many rows were read, and how many of them a rule skipped."""

    batch: pa.RecordBatch
    rows: int
    skipped: int


class Encoder:
    """Encodes the rows of one dataset.

    `fields` are the columns of its value by name (of a hash of one row: by field), `built_at_ms` (since the epoch) the zero of relative
    expiry.
    """

    def __init__(self, spec: DatasetSpec, fields: Mapping[str, str], schema: RowSchema, built_at_ms: int) -> None:
        self.schema = schema
        self._spec = spec
        self._key = spec.key_template
        self._element = Template.parse(spec.element) if spec.element else None
        self._fields = dict(fields)
        self._slot = constant_slot(self._key)
        self._built_at_ms = built_at_ms
        self._expiry_ms = constant_expiry_ms(spec, built_at_ms)

    def encode(self, batch: pa.RecordBatch) -> Encoded:
        """Encode one batch.

        Raises:
            DataError: a row that can't become a key; nothing of the batch is returned.
        """
        columns: Columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        rows = batch.num_rows
        columns = self._kept(columns, rows)
        keys = render(self._key, columns)
        self._check_lengths(keys)
        made = {IKEY: self._ikeys(keys)}
        if self._element:
            made[ELEMENT] = render(self._element, columns)
            self._check_elements(keys, made[ELEMENT])
        made[VALUE] = self._unless_deleted(columns, self._values(columns))
        if self._spec.last_by:
            made[ORDER] = columns[self._spec.last_by]
        self._check_sizes(keys, made[VALUE])
        arrays = [made[name] for name in self.schema.arrow.names]
        return Encoded(pa.RecordBatch.from_arrays(arrays, schema=self.schema.arrow), rows, rows - len(keys))

    def ikeys(self, batch: pa.RecordBatch) -> pa.Array:
        """The internal keys of a batch that has the columns of the key alone; rows without one are left out."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        whole = _all_valid(columns, self._key.columns, batch.num_rows)
        return self._ikeys(render(self._key, {name: column.filter(whole) for name, column in columns.items()}))

    def _kept(self, columns: Columns, rows: int) -> Columns:
        """The columns without the rows that have no key, no value or no element."""
        needed = self._needed(columns)
        whole = self._whole(columns, needed, rows)
        if pc.all(whole).as_py() is not False:
            return columns
        if self._spec.on_null == "fail":
            self._refuse(columns, needed, whole)
        return {name: column.filter(whole) for name, column in columns.items()}

    def _needed(self, columns: Columns) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns in which NULL falls under the spec's rule: always, and where the row is not deleted; fields only together."""
        always = [*self._key.columns, *(self._element.columns if self._element else ())]
        values = () if self._spec.type == "hash" else self._fields.values()
        return _with_nulls(columns, always), _with_nulls(columns, values)

    def _whole(self, columns: Columns, needed: tuple[tuple[str, ...], tuple[str, ...]], rows: int) -> pa.Array:
        """Which rows have all that they need."""
        always, values = needed
        valued = _all_valid(columns, values, rows)
        if self._spec.type == "hash" and self._element is None and all(columns[name].null_count for name in self._fields.values()):
            some = pa.array(np.zeros(rows, dtype=bool))
            for name in self._fields.values():
                some = pc.or_(some, pc.is_valid(columns[name]))
            valued = some
        return pc.and_(_all_valid(columns, always, rows), pc.or_(valued, self._deleted(columns)))

    def _deleted(self, columns: Columns) -> pa.Array | pa.Scalar:
        """Which rows are marked; a NULL marks nothing."""
        return pc.fill_null(columns[self._spec.delete_if], False) if self._spec.delete_if else pa.scalar(False)

    def _unless_deleted(self, columns: Columns, values: pa.Array) -> pa.Array:
        if self._spec.delete_if is None:
            return values
        return pc.if_else(self._deleted(columns), pa.scalar(None, pa.binary()), values)

    def _refuse(self, columns: Columns, needed: tuple[tuple[str, ...], tuple[str, ...]], whole: pa.Array) -> None:
        row = pc.index(whole, False).as_py()
        bad = [name for name in (*needed[0], *needed[1]) if not columns[name][row].is_valid] or list(self._fields.values())
        shown = {name: _shown(columns[name], row) for name in dict.fromkeys((*self._key.columns, *bad))}
        what = f"column {bad[0]}" if len(bad) == 1 else f"columns {', '.join(bad)}"
        message = (
            f"table {self._spec.source.table} has NULL in {what} of the row {shown}, and dataset {self._spec.dataset} needs a value there: "
            f"mend the row, filter it out in source.where, or set on_null: skip"
        )
        raise NullValueError(message, table=self._spec.source.table, columns=bad, row={name: str(value) for name, value in shown.items()})

    def _check_lengths(self, keys: pa.Array) -> None:
        if len(keys) and pc.max(pc.binary_length(keys)).as_py() > USER_KEY_BYTES_MAX:
            longest = max(keys.to_pylist(), key=len)
            message = (
                f"the key {longest[:64]!r}... of dataset {self._spec.dataset} has {len(longest)} bytes, the limit is {USER_KEY_BYTES_MAX}"
            )
            raise KeyTooLongError(message, dataset=self._spec.dataset, bytes=len(longest))

    def _check_elements(self, keys: pa.Array, elements: pa.Array) -> None:
        """Clients can write no longer ones, so a key that holds one could not be written again."""
        lengths = pc.binary_length(elements)
        longest = pc.max(lengths).as_py() or 0
        if longest <= ELEMENT_BYTES_MAX:
            return
        row = pc.index(lengths, longest).as_py()
        what, name = "member" if self._spec.type == "zset" else "field", keys[row].as_py().decode(errors="backslashreplace")
        message = f"the {what} {elements[row].as_py()[:64]!r}... of the key {name} has {longest} bytes, the limit is {ELEMENT_BYTES_MAX}"
        raise KeyTooLongError(message, dataset=self._spec.dataset, key=name, bytes=longest)

    def _check_sizes(self, keys: pa.Array, values: pa.Array) -> None:
        if self._spec.type != "hash" or (pc.max(pc.binary_length(values)).as_py() or 0) <= PACKED_BYTES_MAX:
            return
        lengths = pc.binary_length(values)
        row = pc.index(lengths, pc.max(lengths)).as_py()
        name, size = keys[row].as_py().decode(errors="backslashreplace"), lengths[row].as_py()
        message = f"the hash {name} has {size} bytes, the most that one value holds is {PACKED_BYTES_MAX}: leave large columns out"
        raise CollectionTooLargeError(message, key=name, bytes=size)

    def _ikeys(self, keys: pa.Array) -> pa.Array:
        slots = self._slots(keys)
        starts = fixed(np.column_stack((slots >> 8, slots & 0xFF, np.full(len(keys), Kind.META))).astype(np.uint8))
        return join([starts, keys])

    def _slots(self, keys: pa.Array) -> npt.NDArray[np.uint16]:
        if self._slot is not None:
            return np.full(len(keys), self._slot, dtype=np.uint16)
        listed = keys.to_pylist()
        data = keys.buffers()[2]
        if data is not None and b"{" in memoryview(data).tobytes():
            return np.fromiter(map(key_slot, listed), np.uint16, len(listed))
        return np.fromiter((crc_hqx(key, 0) & _SLOT_MASK for key in listed), np.uint16, len(listed))

    def _values(self, columns: Columns) -> pa.Array:
        if self._spec.type == "zset":
            return self._scores(columns)
        texts = {field: text_of(columns[name]) for field, name in self._fields.items()}
        if self._element:
            (value,) = texts.values()
            return value
        if self._spec.type == "string":
            (text,) = texts.values()
            return strings(self._head(ValueType.STRING, columns), text, lz4=self._spec.lz4)
        return packed_hashes(self._head(ValueType.HASH, columns), [(field.encode(), text) for field, text in texts.items()])

    def _head(self, kind: ValueType, columns: Columns) -> Part:
        """The start of the meta values: with the moment of a row's own column, where it has one."""
        ttl = self._spec.ttl
        if ttl is None or ttl.column is None:
            return constant(head(kind, self._expiry_ms))
        column = columns[ttl.column]
        if ttl.at:
            return heads(kind, column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()))
        seconds = pc.max_element_wise(pc.min_element_wise(column, TTL_SECONDS_MAX, skip_nulls=False), 0, skip_nulls=False)
        return heads(kind, pc.add(pc.multiply(seconds.cast(pa.int64()), 1000), self._built_at_ms))

    def _scores(self, columns: Columns) -> pa.Array:
        (name,) = self._fields.values()
        column = columns[name]
        scores = np.asarray(pc.fill_null(pc.cast(column, pa.float64(), safe=False), 0.0))  # NULL: of a deleted row
        if np.isnan(scores).any():
            row = int(np.isnan(scores).argmax())
            shown = {key: _shown(columns[key], row) for key in self._key.columns}
            message = f"table {self._spec.source.table} has the score NaN in column {name} of the row {shown}: Redis can't order it"
            raise InvalidScoreError(message, table=self._spec.source.table, column=name)
        return fixed(sortable_scores(scores).reshape(-1, 1))


def _shown(column: pa.Array, row: int) -> str | None:
    """A value as a message shows it: its text, as Python's dates end with the year 9999."""
    text = text_of(column.slice(row, 1))[0].as_py()
    return None if text is None else text.decode(errors="backslashreplace")


def _with_nulls(columns: Columns, names: object) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if columns[name].null_count)  # type: ignore[call-overload]


def _all_valid(columns: Columns, names: tuple[str, ...], rows: int) -> pa.Array:
    whole = pa.array(np.ones(rows, dtype=bool))
    for name in names:
        whole = pc.and_(whole, pc.is_valid(columns[name]))
    return whole


def render(template: Template, columns: Columns) -> pa.Array:
    """`Template.render` of many rows."""
    texts = {name: text_of(columns[name]) for name in dict.fromkeys(template.columns)}
    rows = len(next(iter(texts.values())))
    parts: list[Part] = []
    for part in template.parts:
        match part:
            case Literal(text=text):
                parts.append(constant(text.encode()))
            case Column(name=name):
                parts.append(texts[name])
            case ShardNumber(count=count):
                parts.append(_shard_numbers([texts[name] for name in template.columns], count, rows))
    return join(parts)


def _shard_numbers(texts: list[pa.Array], count: int, rows: int) -> pa.Array:
    joined = pc.binary_join_element_wise(*texts, constant(SEPARATOR)) if len(texts) > 1 else texts[0]
    numbers = np.fromiter((shard_number([text], count) for text in joined.to_pylist()), np.int32, rows)
    return pa.array(numbers).cast(pa.string()).cast(pa.binary())


def constant_expiry_ms(spec: DatasetSpec, built_at_ms: int) -> int | None:
    """When all keys expire, in ms since the epoch; None if they don't, or each at a moment of its own."""
    return built_at_ms + spec.ttl.seconds * 1000 if spec.ttl and spec.ttl.seconds else None


def constant_slot(template: Template) -> int | None:
    """The slot of every key, if the template's hash tag is literal; None if it differs from row to row."""
    first = template.parts[0]
    literal = first.text.encode() if isinstance(first, Literal) else b""
    start = literal.find(b"{")
    end = literal.find(b"}", start + 1) if start >= 0 else -1
    return key_slot(literal) if end > start + 1 else None
