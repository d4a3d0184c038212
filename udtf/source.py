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
    frame = spark.table(table)
    fields = {field.name: field for field in frame.schema.fields}
    _check_columns(spec, fields)
    where = spec.source.filter_for(version)
    if where:
        try:
            frame = frame.where(where)
        except (AnalysisException, ParseException) as wrong:
            message = f"field source.where: Spark can't use {where!r} on {table}: {wrong.getMessage() or wrong}"
            raise SpecError(message, table=table, where=where) from wrong
    return frame.select(*(_as_sent(fields[name]) for name in columns_of(spec, fields)))


def columns_of(spec: DatasetSpec, fields: Iterable[str]) -> tuple[str, ...]:
    """All columns that a version needs, key columns first, each once."""
    return tuple(dict.fromkeys([*spec.named_columns, *value_columns(spec, fields)]))


def value_columns(spec: DatasetSpec, fields: Iterable[str]) -> tuple[str, ...]:
    """The columns that become the value: a hash's fields in order, a string's column, a sorted set's score."""
    if spec.string:
        return (spec.string.column,)
    if spec.zset:
        return (spec.zset.score,)
    if spec.hash and spec.hash.columns:
        return spec.hash.columns
    keys = set(spec.key_template.columns)
    return tuple(name for name in fields if name not in keys)


def _check_columns(spec: DatasetSpec, fields: dict[str, StructField]) -> None:
    for name in spec.named_columns:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            message = f"table {spec.source.table} has no column {name}, which the spec of {spec.dataset} names: {hint}"
            raise UnknownColumnError(message, table=spec.source.table, column=name, columns=list(fields))
    if not value_columns(spec, fields):
        message = f"table {spec.source.table} has no column besides those of the key {spec.key}: a hash needs at least one field"
        raise SpecError(message, table=spec.source.table)
    if spec.zset and not isinstance(fields[spec.zset.score].dataType, NumericType):
        kind = fields[spec.zset.score].dataType.simpleString()
        raise SpecError(f"field zset.score: column {spec.zset.score} is {kind}: name a numeric column", column=spec.zset.score)
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
        column = F.to_json(column)
    return column.alias(field.name)
