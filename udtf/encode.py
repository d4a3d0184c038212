"""The encoder: an Arrow batch of table rows becomes a batch of (partition, internal key, value), vectorised.

Rules:
- A batch is encoded as a whole; Python looks at single rows only for the CRC of their slot, and to name a row in an error.
- A rule of the spec decides about NULLs; what it skips is counted. What it forbids raises a DataError that names column and row.
- Values are complete meta values of strings and hashes. A sorted set's rows stay one per member, `sortable-score member`, so that Spark's
  sort brings them into rank order; `udtf.partition` folds them. Negative zero is stored as zero: the two are equal to Redis.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.errors import CollectionTooLargeError, InvalidScoreError, KeyTooLongError, NullValueError
from pipeline.format.keys import USER_KEY_BYTES_MAX, Kind
from pipeline.format.slots import SLOT_COUNT, key_slot
from pipeline.format.values import HEAD_BYTES, PACKED_BYTES_MAX, ValueType, head
from pipeline.spec import DatasetSpec
from pipeline.template import SEPARATOR, Column, Literal, ShardNumber, Template, shard_number
from udtf.layout import Part, constant, decimal_lengths, fixed, join, ragged
from udtf.text import text_of

ENCODED_SCHEMA = pa.schema([("partition", pa.int32()), ("ikey", pa.binary()), ("value", pa.binary())])
ENCODED_DDL = "partition int, ikey binary, value binary"

_SLOT_MASK = SLOT_COUNT - 1
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded batch, and how many of its rows a rule skipped."""

    batch: pa.RecordBatch
    rows: int
    skipped: int


class Encoder:
    """Encodes the rows of one dataset.

    `fields` are its value columns in order, `partitions` the number of slot partitions, `built_at_ms` (since the epoch) the zero of
    relative expiry.
    """

    def __init__(self, spec: DatasetSpec, fields: Sequence[str], partitions: int, built_at_ms: int) -> None:
        self._spec = spec
        self._key = spec.key_template
        self._member = Template.parse(spec.zset.member) if spec.zset else None
        self._fields = tuple(fields)
        self._partitions = partitions
        self._slot = constant_slot(self._key)
        self._expiry_ms = constant_expiry_ms(spec, built_at_ms)

    def encode(self, batch: pa.RecordBatch) -> Encoded:
        """Encode one batch.

        Raises:
            DataError: a row that can't become a key; nothing of the batch is returned.
        """
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        needed = self._needed(columns)
        whole = self._whole(columns, needed)
        rows = batch.num_rows
        if pc.sum(whole).as_py() != rows:
            if self._spec.on_null == "fail":
                self._refuse(columns, needed, whole)
            columns = {name: column.filter(whole) for name, column in columns.items()}
        kept = len(next(iter(columns.values())))
        keys = render(self._key, columns)
        self._check_lengths(keys)
        slots = self._slots(keys)
        heads = fixed(np.column_stack((slots >> 8, slots & 0xFF, np.full(kept, Kind.META))).astype(np.uint8))
        partitions = (slots.astype(np.int64) * self._partitions // SLOT_COUNT).astype(np.int32)
        values = self._values(columns)
        self._check_sizes(keys, values)
        arrays = [pa.array(partitions), join([heads, keys]), values]
        return Encoded(pa.RecordBatch.from_arrays(arrays, schema=ENCODED_SCHEMA), rows, rows - kept)

    def _needed(self, columns: dict[str, pa.Array]) -> tuple[str, ...]:
        """The columns in which NULL falls under the spec's rule; a hash's fields do so only together."""
        names = list(self._key.columns)
        if self._member:
            names += self._member.columns
        if self._spec.type != "hash":
            names += self._fields
        return tuple(name for name in dict.fromkeys(names) if columns[name].null_count)

    def _whole(self, columns: dict[str, pa.Array], needed: tuple[str, ...]) -> pa.Array:
        """Which rows have all that they need."""
        rows = len(next(iter(columns.values())))
        whole = pa.array(np.ones(rows, dtype=bool))
        for name in needed:
            whole = pc.and_(whole, pc.is_valid(columns[name]))
        if self._spec.type == "hash" and all(columns[name].null_count for name in self._fields):
            some = pa.array(np.zeros(rows, dtype=bool))
            for name in self._fields:
                some = pc.or_(some, pc.is_valid(columns[name]))
            whole = pc.and_(whole, some)
        return whole

    def _refuse(self, columns: dict[str, pa.Array], needed: tuple[str, ...], whole: pa.Array) -> None:
        row = pc.index(whole, False).as_py()
        bad = [name for name in needed if not columns[name][row].is_valid] or list(self._fields)
        shown = {name: columns[name][row].as_py() for name in dict.fromkeys((*self._key.columns, *bad))}
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

    def _check_sizes(self, keys: pa.Array, values: pa.Array) -> None:
        if self._spec.type != "hash" or not len(values) or pc.max(pc.binary_length(values)).as_py() <= PACKED_BYTES_MAX:
            return
        lengths = pc.binary_length(values)
        row = pc.index(lengths, pc.max(lengths)).as_py()
        name, size = keys[row].as_py().decode(errors="backslashreplace"), lengths[row].as_py()
        message = f"the hash {name} has {size} bytes, the most that one value holds is {PACKED_BYTES_MAX}: leave large columns out"
        raise CollectionTooLargeError(message, key=name, bytes=size)

    def _slots(self, keys: pa.Array) -> npt.NDArray[np.uint16]:
        if self._slot is not None:
            return np.full(len(keys), self._slot, dtype=np.uint16)
        listed = keys.to_pylist()
        data = keys.buffers()[2]
        if data is not None and b"{" in memoryview(data).tobytes():
            return np.fromiter(map(key_slot, listed), np.uint16, len(listed))
        return np.fromiter((crc_hqx(key, 0) & _SLOT_MASK for key in listed), np.uint16, len(listed))

    def _values(self, columns: dict[str, pa.Array]) -> pa.Array:
        if self._spec.type == "string":
            return join([self._head(ValueType.STRING, columns), text_of(columns[self._fields[0]])])
        if self._spec.type == "hash":
            return packed_hashes(self._head(ValueType.HASH, columns), [(name.encode(), text_of(columns[name])) for name in self._fields])
        return join([self._scores(columns), render(self._member or self._key, columns)])

    def _head(self, kind: ValueType, columns: dict[str, pa.Array]) -> Part:
        """The start of the meta values: with the moment of a row's own column, where it has one."""
        if self._spec.ttl is None or self._spec.ttl.at is None:
            return constant(head(kind, self._expiry_ms))
        moments = columns[self._spec.ttl.at].cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        # a moment before 1970, such as a sentinel of the year 1, has passed as well as 1970 has
        known = fixed(np.maximum(np.asarray(pc.fill_null(moments, 0)), 0).astype("<u8").reshape(-1, 1))
        return pc.if_else(pc.is_valid(moments), join([constant(head(kind, 0)[:HEAD_BYTES]), known]), constant(head(kind)))

    def _scores(self, columns: dict[str, pa.Array]) -> pa.Array:
        column = columns[self._fields[0]]
        scores = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if np.isnan(scores).any():
            row = int(np.isnan(scores).argmax())
            shown = {name: columns[name][row].as_py() for name in self._key.columns}
            message = (
                f"table {self._spec.source.table} has the score NaN in column {self._fields[0]} of the row {shown}: Redis can't order it"
            )
            raise InvalidScoreError(message, table=self._spec.source.table, column=self._fields[0])
        return fixed(sortable_scores(scores).reshape(-1, 1))


def sortable_scores(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """`pipeline.format.keys.sortable_score` of many scores: big-endian numbers whose bytes order as the scores do."""
    bits = (scores + 0.0).view(np.uint64)
    flipped = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return flipped.astype(">u8")


def packed_hashes(start: Part, fields: Sequence[tuple[bytes, pa.Array]]) -> pa.Array:
    """The meta values of packed hashes after their `start`, one per row; a NULL leaves its field out. Every row has one at least."""
    pieces = [_pair(name, texts) for name, texts in fields]
    rows = len(pieces[0])
    present = np.column_stack([np.asarray(piece.is_valid()) for piece in pieces])
    lengths = np.column_stack([pc.fill_null(pc.binary_length(piece), 0).to_numpy(zero_copy_only=False) for piece in pieces])
    ends = np.concatenate((np.zeros((rows, 1), np.int64), np.cumsum(lengths, axis=1, dtype=np.int64)), axis=1)
    counts = present.sum(axis=1, dtype=np.int64)
    kept = np.concatenate((np.ones((rows, 1), bool), present), axis=1)
    table = ragged(ends[kept].astype("<u4"), counts + 1)
    parts: list[Part] = [start, fixed(counts.astype("<u4").reshape(-1, 1)), table, *pieces]
    return join(parts, skip_nulls=True)


def _pair(name: bytes, texts: pa.Array) -> pa.Array:
    start = constant(b"$%d\r\n%b\r\n$" % (len(name), name))
    end = constant(b"\r\n")
    return join([start, decimal_lengths(texts), end, texts, end])


def render(template: Template, columns: dict[str, pa.Array]) -> pa.Array:
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
