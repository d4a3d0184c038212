"""A cheap look at the keys before the build: one pass over the key's columns in the JVM, a few rows to Python.

Every row draws a number; those with the smallest are the sample, of exactly the size that is wanted, and the largest number drawn among
them tells how many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own convention

from pipeline.format.keys import element_version
from pipeline.format.values import ValueType
from pipeline.spec import DatasetSpec
from udtf.encode import Encoder
from udtf.placement import SPLIT_ROWS_MIN, Placement, even_borders, place_elements

SAMPLE_ROWS_PER_TASK = 100  # a task's share is then off by a tenth or so
SAMPLE_ROWS_MIN, SAMPLE_ROWS_MAX = 20_000, 1_000_000  # the latter are some 100 MB on the driver
SEED = 20_117  # any: the same table gives the same borders

_DRAWN = "${drawn}"  # a name that no template can use


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows of a table, and about how many it has (exactly, if all are here)."""

    batches: list[pa.RecordBatch]
    rows_estimate: float


def draw(source: DataFrame, columns: tuple[str, ...], rows: int) -> Sample:
    """Evenly drawn rows with these columns."""
    drawn = source.select(*(F.col(f"`{name}`") for name in columns), F.rand(SEED).alias(_DRAWN)).orderBy(_DRAWN).limit(rows).toArrow()
    estimate = float(drawn.num_rows)
    if drawn.num_rows == rows:
        estimate = rows / max(drawn.column(_DRAWN)[-1].as_py(), 1 / (1 << 52))
    return Sample(drawn.drop_columns([_DRAWN]).combine_chunks().to_batches(), estimate)


def plan_placement(
    source: DataFrame, spec: DatasetSpec, encoder: Encoder, version: str, tasks: int, split_rows_min: int = SPLIT_ROWS_MIN
) -> Placement:
    """Where `tasks` tasks of even work begin and end."""
    kind = ValueType[spec.type.upper()]
    whole = Placement(kind, element_version(version))
    if tasks == 1:
        return whole
    rows = min(max(SAMPLE_ROWS_PER_TASK * tasks, SAMPLE_ROWS_MIN), SAMPLE_ROWS_MAX)
    key_columns = tuple(dict.fromkeys(spec.key_template.columns))
    if not spec.has_elements:
        sample = draw(source, key_columns, rows)
        ikeys = [ikey for batch in sample.batches for ikey in encoder.ikeys(batch).to_pylist()]
        return replace(whole, borders=even_borders(sorted(ikeys), tasks))
    sample = draw(source, tuple(source.columns), rows)
    encoded = [encoder.encode(batch).batch for batch in sample.batches]
    return place_elements(whole, encoded, encoder.schema, tasks, sample.rows_estimate, split_rows_min)
