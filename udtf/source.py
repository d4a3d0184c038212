"""The Hive table: found, filtered, its columns checked, before any Spark job runs.

Nested types are turned to JSON here, by Spark. Everything else travels as it is and becomes text in `udtf.text`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own convention
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
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

JSON_COLUMN = "${json}"  # a string of several columns travels under a name that no template can use

# to_json would tell instants in the session's time zone and drop what is below a millisecond
JSON_OPTIONS = {
    "timeZone": "UTC",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}

_PLAIN = (StringType, BinaryType, BooleanType, DateType, TimestampType, TimestampNTZType, NumericType)
_NESTED = (ArrayType, MapType, StructType)


def read_source(spark: SparkSession, spec: DatasetSpec, version: str) -> DataFrame:
    """The rows of a version: exactly the columns that the spec needs, key columns first.

    Raises:
        TableNotFoundError, UnknownColumnError, SpecError: the spec does not fit the table.
    """
    table = spec.source.table
    if not spark.catalog.tableExists(table):
        message = f"the Hive metastore has no table {table}: check field source.table, and that the job reaches the right metastore"
        raise TableNotFoundError(message, table=table)
    try:
        frame = spark.table(table)
    except AnalysisException as broken:  # the metastore has it, but can't say what it is: a view over a table that is gone
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
    needed = dict.fromkeys([*spec.named_columns, *value_columns(spec, fields)])
    return tuple(name for name in needed if name != JSON_COLUMN)


def value_columns(spec: DatasetSpec, fields: Iterable[str]) -> tuple[str, ...]:
    """The columns that become the value: a hash's fields in order, a string's column (or its JSON), a sorted set's score."""
    if spec.string:
        return spec.string.names if spec.string.column else (JSON_COLUMN,)
    if spec.zset:
        return (spec.zset.score,)
    if spec.hash and spec.hash.columns:
        return spec.hash.columns
    others = {*spec.key_template.columns, spec.ttl.at if spec.ttl else None}
    return tuple(name for name in fields if name not in others)


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
    if spec.zset and not isinstance(fields[spec.zset.score].dataType, NumericType):
        kind = fields[spec.zset.score].dataType.simpleString()
        raise SpecError(f"field zset.score: column {spec.zset.score} is {kind}: name a numeric column", column=spec.zset.score)
    if spec.ttl and spec.ttl.at and not isinstance(fields[spec.ttl.at].dataType, TimestampType):
        kind = fields[spec.ttl.at].dataType.simpleString()
        raise SpecError(f"field ttl.at: column {spec.ttl.at} is {kind}: name a TIMESTAMP column", column=spec.ttl.at)
    for name in columns_of(spec, fields):
        _check_type(name, fields[name].dataType)


def _check_type(name: str, kind: DataType) -> None:
    if not isinstance(kind, (*_PLAIN, *_NESTED)):
        message = (
            f"column {name} has the type {kind.simpleString()}, which has no text form (docs/types.md): leave it out, or cast it in a view"
        )
        raise SpecError(message, column=name, type=kind.simpleString())


def _as_sent(field: StructField) -> Column:
    column = F.col(f"`{field.name}`")
    if isinstance(field.dataType, _NESTED):
        column = F.to_json(column, JSON_OPTIONS)
    return column.alias(field.name)
