"""Which types of columns have a text form, without Spark."""

from __future__ import annotations

import pytest
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipeline.format.errors import SpecError
from udtf.source import check_type


def nested(key: DataType) -> list[DataType]:
    plain = MapType(key, StringType())
    return [plain, ArrayType(plain), MapType(StringType(), plain), StructType([StructField("a", LongType()), StructField("b", plain)])]


@pytest.mark.parametrize("key", [StringType(), LongType(), BooleanType()], ids=str)
def test_a_map_of_text_whole_number_or_boolean_keys_has_a_form_at_any_depth(key: DataType) -> None:
    for kind in nested(key):
        check_type("tags", kind)


@pytest.mark.parametrize(
    "key",
    [DateType(), TimestampType(), BinaryType(), DoubleType(), DecimalType(20, 8), StructType([StructField("a", LongType())])],
    ids=lambda one: one.typeName(),
)
def test_a_map_of_other_keys_is_refused_by_column_and_type_at_any_depth(key: DataType) -> None:
    for kind in nested(key):
        with pytest.raises(SpecError, match=r"column tags has the type .*transform_keys\(tags") as refused:
            check_type("tags", kind)
        assert (refused.value.fields["column"], refused.value.fields["key_type"]) == ("tags", key.simpleString())


def test_an_interval_is_refused() -> None:
    with pytest.raises(SpecError, match="column wait has the type interval day to second, which has no text form"):
        check_type("wait", DayTimeIntervalType())
