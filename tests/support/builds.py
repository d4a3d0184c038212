"""Versions without Spark: the job's own encoder and writer on an Arrow table in memory. Sorting is all that Spark does between them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.format.layout import new_build_id
from pipeline.format.manifest import Manifest
from pipeline.format.slots import even_ranges
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.store import ObjectStore
from udtf.build import assemble, encode_all, publish
from udtf.encode import ENCODED_SCHEMA, Encoder, constant_expiry_ms
from udtf.partition import PartitionTask
from udtf.source import value_columns

PARTITIONS = 4


def hash_spec(dataset: str, key: str, table: str = "features.rows", **more: Any) -> DatasetSpec:
    """A hash of all columns that are not in the key."""
    return parse_spec(
        {"dataset": dataset, "source": {"table": table}, "key": key, "type": "hash", "mode": "replace", **more}, "a test's spec"
    )


def build(
    store: ObjectStore, spec: DatasetSpec, version: str, columns: Mapping[str, Sequence[Any]] | pa.Table, *, file_raw_bytes: int = 1 << 20
) -> Manifest:
    """Build and publish one version from columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    build_id, built_at_ms = new_build_id(), int(time.time() * 1000)
    ranges = tuple(even_ranges(PARTITIONS))
    task = PartitionTask(
        store.root, spec.dataset, version, build_id, spec.type, ranges, built_at_ms, constant_expiry_ms(spec, built_at_ms), file_raw_bytes
    )
    written = [record for batch in encoded_partitions(spec, table, built_at_ms) for record in task.records([batch])]
    return publish(store, assemble(spec, version, build_id, built_at_ms, written)).manifest


def encoded_partitions(spec: DatasetSpec, table: pa.Table, built_at_ms: int) -> Iterator[pa.RecordBatch]:
    """The encoded rows of each slot partition, sorted."""
    encoder = Encoder(spec, value_columns(spec, table.column_names), PARTITIONS, built_at_ms)
    encoded = pa.Table.from_batches(list(encode_all(encoder, table.combine_chunks().to_batches())), ENCODED_SCHEMA)
    rows = sorted(zip(*(column.to_pylist() for column in encoded.columns), strict=True))
    for partition in range(PARTITIONS):
        mine = [row for row in rows if row[0] == partition]
        if mine:
            yield pa.RecordBatch.from_arrays(
                [pa.array(column, kind) for column, kind in zip(zip(*mine, strict=True), ENCODED_SCHEMA.types, strict=True)],
                schema=ENCODED_SCHEMA,
            )
