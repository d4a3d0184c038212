"""A cheap look at the table before the build: its rows are counted, and of an even sample the keys and the bytes of the rows are drawn.

Nothing but the sample is gathered anywhere, whatever the table's size. Values stay where they are: their bytes are counted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, StringType

from pipeline.format.keys import element_version
from pipeline.format.values import ValueType
from pipeline.spec import DatasetSpec
from pipeline.template import Template
from udtf.encode import Encoder
from udtf.placement import ROW_BYTES, SPLIT_ROWS_MIN, Placement, even_borders, place_elements

SAMPLE_ROWS_PER_TASK = 100  # a task's share is then off by a tenth or so
SAMPLE_ROWS_MIN, SAMPLE_ROWS_MAX = 20_000, 1_000_000  # the latter are some 100 MB on the driver
SEED = 20_117  # any: the same table gives the same borders
PLAIN_BYTES = 24  # what a number, a date or a moment becomes, at most about
UNSEEN_BYTES_MAX = ROW_BYTES // 2  # of a row's numbers that are taken for granted: NULLs take a third off its weight at most

_WIDTH = "${width}"  # a name that no template can use


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows of a table, the bytes that each comes to as a whole, and how many rows the table has."""

    batches: list[pa.RecordBatch]
    widths: list[int]
    rows: int

    @property
    def widest(self) -> int:
        """The most that one of them comes to."""
        return max(self.widths, default=0)


def draw(source: DataFrame, columns: Sequence[str], rows: int, *, whole: bool = False, counted: str | None = None) -> Sample:
    """About so many rows, evenly drawn, with these columns; all if there are no more. With `whole`, those that lack a column are left out;
    in `counted` sizes stand for the values.
    """
    total = source.count()
    fields = source.schema.fields
    named = {field.name: f"c{at}" for at, field in enumerate(fields)}  # SQL does not take every name
    texts = [isinstance(field.dataType, StringType | BinaryType) for field in fields]
    looked = texts.count(False) * PLAIN_BYTES > UNSEEN_BYTES_MAX
    sizes = {field.name: _size(named[field.name], is_text, looked) for field, is_text in zip(fields, texts, strict=True)}
    wanted = [sizes[name] if name == counted else named[name] for name in columns]
    wanted.append(f"{sum(map(len, named))}L + " + " + ".join(f"coalesce({size}, 0)" for size in sizes.values()))
    some = source.toDF(*named.values())
    if total > rows:
        some = some.where(f"rand({SEED}) < {rows / total}D")
    drawn = some.selectExpr(*wanted).toArrow().rename_columns([*columns, _WIDTH])
    if whole:
        drawn = drawn.drop_null()
    widths = drawn.column(_WIDTH).to_pylist()
    return Sample(drawn.drop_columns([_WIDTH]).combine_chunks().to_batches(), widths, total)


def _size(name: str, is_text: bool, looked: bool) -> str:
    """The bytes of one value, as SQL; NULL for NULL, if it is looked at."""
    if is_text:
        return f"octet_length({name})"
    return f"if({name} IS NULL, NULL, {PLAIN_BYTES})" if looked else str(PLAIN_BYTES)


def plan_placement(
    source: DataFrame, spec: DatasetSpec, encoder: Encoder, version: str, tasks: int, split_rows_min: int = SPLIT_ROWS_MIN
) -> tuple[Placement, int | None]:
    """Where `tasks` tasks of even work begin and end; and the sample's widest row, if there is a sample."""
    kind = ValueType[spec.type.upper()]
    whole = Placement(kind, element_version(version))
    if tasks == 1:
        return whole, None
    rows = min(max(SAMPLE_ROWS_PER_TASK * tasks, SAMPLE_ROWS_MIN), SAMPLE_ROWS_MAX)
    if not spec.has_elements:
        key_columns = tuple(dict.fromkeys(spec.key_template.columns))
        sample = draw(source, key_columns, rows, whole=True)
        ikeys = [ikey for batch in sample.batches for ikey in encoder.ikeys(batch).to_pylist()]
        return replace(whole, borders=even_borders(zip(ikeys, sample.widths, strict=True), tasks)), sample.widest
    counted = _value_alone(spec)
    sample = draw(source, source.columns, rows, counted=counted)
    encoded = [encoder.encode(batch).batch for batch in sample.batches]
    weigh = _told if counted else pc.binary_length
    return place_elements(whole, encoded, encoder.schema, tasks, sample.rows, split_rows_min, weigh), sample.widest


def _value_alone(spec: DatasetSpec) -> str | None:
    """The column of the values of a hash of many rows, if it is nothing else."""
    value = spec.hash.value if spec.hash else None
    elements = Template.parse(spec.element).columns if spec.element else ()
    return value if value not in {*spec.key_template.columns, *elements, *spec.rule_columns} else None


def _told(values: pa.Array) -> pa.Array:
    """Sizes that stand for values, and were made texts as these are."""
    return values.cast(pa.string()).cast(pa.int32())
