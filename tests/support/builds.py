"""Versions without Spark: the job's own encoder and writer on an Arrow table in memory. Sorting is all that Spark does between them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.format.keys import element_version
from pipeline.format.layout import new_build_id
from pipeline.format.manifest import Manifest
from pipeline.format.values import ValueType
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.store import ObjectStore
from udtf.build import assemble, encode_all, publish
from udtf.delta import Delta
from udtf.encode import Encoder, constant_expiry_ms
from udtf.partition import PartitionTask
from udtf.placement import SPLIT_ROWS_MIN, Placement, even_borders, place_elements
from udtf.rows import COUNTER_KEY, IKEY, PARTITION, Counters, RowSchema
from udtf.source import value_columns
from udtf.split import split_metas

TASKS = 4


def hash_spec(dataset: str, key: str, table: str = "features.rows", **more: Any) -> DatasetSpec:
    """A hash of all columns that are not in the key."""
    return parse_spec(
        {"dataset": dataset, "source": {"table": table}, "key": key, "type": "hash", "mode": "replace", **more}, "a test's spec"
    )


def build(
    store: ObjectStore,
    spec: DatasetSpec,
    version: str,
    columns: Mapping[str, Sequence[Any]] | pa.Table,
    *,
    file_raw_bytes: int = 1 << 20,
    base: str | None = None,
    split_rows_min: int = SPLIT_ROWS_MIN,
) -> Manifest:
    """Build and publish one version from columns; with a `base`, a delta on it."""
    delta = Delta.on(store, spec, version, base) if base else None
    of_spec, spec = spec, delta.spec if delta else spec
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    built_at_ms = int(time.time() * 1000)
    encoder = Encoder(spec, value_columns(spec, table.column_names), RowSchema(spec.has_elements), built_at_ms)
    encoded = pa.Table.from_batches(encode_all(encoder, table.combine_chunks().to_batches()), encoder.schema.arrow)

    def opened(_url: str) -> ObjectStore:
        return store

    task = PartitionTask(
        store.root,
        spec.dataset,
        version,
        new_build_id(),
        replace(
            placed_evenly(spec, version, encoded, encoder.schema, split_rows_min),
            version=delta.base.element_version if delta and delta.base else element_version(version),
        ),
        constant_expiry_ms(spec, built_at_ms),
        deletes=spec.mode == "upsert" or (delta is not None and delta.base is None),
        delta=delta is not None,
        base=replace(delta.base, open_store=opened) if delta and delta.base else None,
        open_store=opened,
        file_raw_bytes=file_raw_bytes,
    )
    batches = list(sorted_tasks(encoder, task.placement, encoded))
    if task.base is not None:  # as the job does: a task without rows gets a counter row
        there = {batch.column(PARTITION)[0].as_py() for batch in batches}
        batches += [_anchor(encoder.schema, number) for number in range(task.placement.tasks) if number not in there]
    written = [record for batch in batches for record in task.records([batch])]
    written += split_metas(task, (one.folded for one in written if one.folded))
    for one in written:
        assert one.failure is None, one.failure
    manifest = assemble(spec, version, task.build_id, built_at_ms, written, delta)
    return publish(store, manifest.model_copy(update={"spec": of_spec.model_dump(mode="json", exclude_none=True)})).manifest


def _anchor(schema: RowSchema, task: int) -> pa.RecordBatch:
    batch = schema.counter_row(Counters(rows=0, skipped=0).model_dump_json())
    return pa.RecordBatch.from_arrays([pa.array([task], pa.int32()), *batch.columns], schema=schema.placed_arrow)


def placed_evenly(spec: DatasetSpec, version: str, encoded: pa.Table, schema: RowSchema, split_rows_min: int = SPLIT_ROWS_MIN) -> Placement:
    """Borders from all rows, instead of from a sample."""
    whole = Placement(ValueType[spec.type.upper()], element_version(version))
    rows = encoded.filter(pc.not_equal(encoded.column(IKEY), COUNTER_KEY))
    if spec.has_elements:
        return place_elements(whole, rows.to_batches(), schema, TASKS, rows.num_rows, split_rows_min)
    return replace(whole, borders=even_borders(((ikey, 0) for ikey in rows.column(IKEY).to_pylist()), TASKS))


def sorted_tasks(encoder: Encoder, placement: Placement, encoded: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows of each task, sorted as its schema says."""
    schema = encoder.schema.placed_arrow
    placed = pa.Table.from_batches([placement.place(batch, encoder.schema) for batch in encoded.to_batches()], schema)
    by = [schema.get_field_index(name) for name in (PARTITION, *encoder.schema.sort_columns)]
    rows = sorted(
        zip(*(column.to_pylist() for column in placed.columns), strict=True),
        key=lambda row: [(row[at] is not None, row[at]) for at in by],  # NULL first, as Spark sorts
    )
    for task in range(placement.tasks):
        mine = [row for row in rows if row[0] == task]
        if mine:
            columns = zip(zip(*mine, strict=True), schema.types, strict=True)
            yield pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in columns], schema=schema)
