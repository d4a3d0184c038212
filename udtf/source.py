"""The Hive table: found, filtered, its columns checked, before any Spark job runs.

Nested types are turned to JSON here, by Spark. Everything else travels as it is and becomes text in `udtf.text`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own convention
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    IntegralType,
    MapType,
    NumericType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from pipeline.format.errors import SpecError, TableNotFoundError, UnknownColumnError
from pipeline.spec import DatasetSpec
from udtf.failures import reason
from udtf.rows import RowSchema

JSON_COLUMN = "${json}"  # a string of several columns travels under a name that no template can use


# to_json would tell instants in the session's time zone and drop what is below a millisecond
JSON_OPTIONS = {
    "timeZone": "UTC",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}

_PLAIN = (StringType, BinaryType, BooleanType, DateType, TimestampType, TimestampNTZType, NumericType)
_ORDERED = (NumericType, StringType, DateType, TimestampType, TimestampNTZType)
_NESTED = (ArrayType, MapType, StructType)
_JSON_KEYS = (StringType, IntegralType, BooleanType)  # of others, to_json writes what Java's toString makes of Spark's inner form


def read_source(spark: SparkSession, spec: DatasetSpec, version: str) -> DataFrame:
    """The rows of a version: exactly the columns that the spec needs, key columns first.

    Raises:
        TableNotFoundError, UnknownColumnError, SpecError: the spec does not fit the table.
    """
    table = spec.source.table
    try:
        frame = spark.table(table)
    except AnalysisException as broken:
        if not spark.catalog.tableExists(table):
            message = f"the Hive metastore has no table {table}: check field source.table, and that the job reaches the right metastore"
            raise TableNotFoundError(message, table=table) from broken
        # the metastore has it, but can't say what it is: a view over a table that is gone
        raise SpecError(f"field source.table: Spark can't read {table}: {reason(broken)}", table=table) from broken
    fields = {field.name: field for field in frame.schema.fields}
    _check_columns(spec, fields)
    where = spec.source.filter_for(version)
    if where:
        try:
            frame = frame.where(where)
        except (AnalysisException, ParseException) as wrong:
            message = f"field source.where: Spark can't use {where!r} on {table}: {reason(wrong)}"
            raise SpecError(message, table=table, where=where) from wrong
    sent = [_as_sent(fields[name]) for name in columns_of(spec, fields)]
    if spec.string and spec.string.columns:
        sent.append(F.to_json(F.struct(*(F.col(f"`{name}`") for name in spec.string.columns)), JSON_OPTIONS).alias(JSON_COLUMN))
    return frame.select(*sent)


def columns_of(spec: DatasetSpec, fields: Iterable[str]) -> tuple[str, ...]:
    """All columns of the table that a version needs, key columns first, each once."""
    needed = dict.fromkeys([*spec.named_columns, *value_columns(spec, fields).values()])
    return tuple(name for name in needed if name != JSON_COLUMN)


def value_columns(spec: DatasetSpec, fields: Iterable[str]) -> dict[str, str]:
    """The columns that become the value, by name (in a hash of one row, by field): a hash's fields in order or the value of a row's
    field, a string's column (or its JSON), a sorted set's score.
    """
    if spec.string:
        name = spec.string.column or JSON_COLUMN
        return {name: name}
    if spec.zset:
        return {spec.zset.score: spec.zset.score}
    if spec.hash and spec.hash.value:
        return {spec.hash.value: spec.hash.value}
    if spec.hash and spec.hash.named:
        return spec.hash.named
    others = {*spec.key_template.columns, *spec.rule_columns}
    return {name: name for name in fields if name not in others}


def row_schema(spec: DatasetSpec, source: DataFrame) -> RowSchema:
    """Which columns the rows have on their way to the writers."""
    if spec.last_by is None:
        return RowSchema(spec.has_elements)
    column = source.select(F.col(f"`{spec.last_by}`"))
    (order,) = column.schema.fields
    return RowSchema(spec.has_elements, order.dataType.simpleString(), column.limit(0).toArrow().schema.field(0).type)


def _check_columns(spec: DatasetSpec, fields: dict[str, StructField]) -> None:
    for name in spec.named_columns:
        if name not in fields:
            near = difflib.get_close_matches(name.lower(), fields, n=1)
            hint = f"did you mean {near[0]}?" if near else "name one of these"
            table = f"table {spec.source.table} (columns {', '.join(fields)})"
            message = f"{table} has no column {name}, which the spec of {spec.dataset} names: {hint}"
            raise UnknownColumnError(message, table=spec.source.table, column=name, columns=list(fields))
    if not value_columns(spec, fields):
        message = f"table {spec.source.table} has no column besides those of the key {spec.key}: a hash needs at least one field"
        raise SpecError(message, table=spec.source.table)
    for where, name, kinds, wanted in _typed_columns(spec):
        found = fields[name].dataType
        if not isinstance(found, kinds):
            raise SpecError(f"field {where}: column {name} is {found.simpleString()}: name a {wanted} column", column=name)
    for name in columns_of(spec, fields):
        check_type(name, fields[name].dataType)


def _typed_columns(spec: DatasetSpec) -> Iterator[tuple[str, str, tuple[type[DataType], ...], str]]:
    """The columns that must have certain types: where the spec names them, their names, the types, and how to say it."""
    if spec.zset:
        yield "zset.score", spec.zset.score, (NumericType,), "numeric"
    if spec.ttl and spec.ttl.at:
        yield "ttl.at", spec.ttl.at, (TimestampType,), "TIMESTAMP"
    if spec.ttl and spec.ttl.seconds_from:
        yield "ttl.seconds_from", spec.ttl.seconds_from, (IntegralType,), "whole-number"
    if spec.delete_if:
        yield "delete_if", spec.delete_if, (BooleanType,), "BOOLEAN"
    if spec.last_by:
        yield "on_duplicate.last_by", spec.last_by, _ORDERED, "number, text, DATE or TIMESTAMP"


def check_type(name: str, kind: DataType) -> None:
    """Refuse a column whose type has no text form.

    Raises:
        SpecError: by column and type.
    """
    if not isinstance(kind, (*_PLAIN, *_NESTED)):
        message = (
            f"column {name} has the type {kind.simpleString()}, which has no text form (docs/types.md): leave it out, or cast it in a view"
        )
        raise SpecError(message, column=name, type=kind.simpleString())
    for key in _map_keys(kind):
        if not isinstance(key, _JSON_KEYS):
            message = (
                f"column {name} has the type {kind.simpleString()}, and {key.simpleString()} keys of a MAP have no stable text in JSON "
                f"(docs/types.md): leave it out, or make them text in a view, as transform_keys({name}, (k, v) -> string(k)) does"
            )
            raise SpecError(message, column=name, type=kind.simpleString(), key_type=key.simpleString())


def _map_keys(kind: DataType) -> Iterator[DataType]:
    """The types of the keys of all MAPs that a type has in it."""
    match kind:
        case MapType():
            yield kind.keyType
            yield from _map_keys(kind.keyType)
            yield from _map_keys(kind.valueType)
        case ArrayType():
            yield from _map_keys(kind.elementType)
        case StructType():
            for field in kind.fields:
                yield from _map_keys(field.dataType)


def _as_sent(field: StructField) -> Column:
    column = F.col(f"`{field.name}`")
    if isinstance(field.dataType, _NESTED):
        return F.to_json(column, JSON_OPTIONS).alias(field.name)
    return column
