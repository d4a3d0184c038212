"""A delta of 1 % over a version of 2,000,000 rows: what a node fetches for it, how soon it is ready, and whether it reads as a full one.

One node of one shard, with its sidecar and a real S3. Of 20,000 rows 18,000 are other than before, 1,000 are new, and 1,000 went. A full
version of the same rows is loaded as well: every row of the two, read through the shard, must be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis

from bench._nodes import Cluster, cluster
from bench.harness import RUNS, Result, finish
from pipeline.format.desired import Goal
from pipeline.format.slots import even_ranges
from pipeline.format.values import encode_string
from pipeline.load.states import State
from tests.support.versions import BuiltVersion, build_delta, build_version

ROWS = 2_000_000
CHANGED_SHARE, NEW_SHARE, GONE_SHARE = 0.009, 0.0005, 0.0005
VALUE_BYTES = 100
FILES = 16  # of a full version, as a build cuts them: 64 MiB of rows at most
SAMPLES = 1_000  # as many as a build keeps
MOVED_SHARE_MAX = 0.03
READY_S_MAX = 2.0
PIPELINE_ROWS = 10_000
DATASET, PREFIX = "person", "person:"
FULL = "2026-11-21"

Rows = dict[bytes, bytes]


def full_rows(rows: int) -> Rows:
    """The version that everything lies on."""
    return {_key(number): _value(number) for number in range(rows)}


def _value(number: int, mark: int = 0) -> bytes:
    return encode_string(hashlib.shake_128(b"%d %d" % (number, mark)).digest(VALUE_BYTES))


def difference(rows: Rows, run: int) -> dict[bytes, bytes | None]:
    """1 % of the rows, others in each run."""
    chosen = random.Random(run)
    count = len(rows)
    touched = chosen.sample(range(count), int(count * (CHANGED_SHARE + GONE_SHARE)))
    gone = touched[: int(count * GONE_SHARE)]
    delta: dict[bytes, bytes | None] = {_key(number): _value(number, run + 1) for number in touched}
    delta |= {_key(count + number): _value(number, run + 1) for number in range(int(count * NEW_SHARE))}
    return delta | {_key(number): None for number in gone}


def _key(number: int) -> bytes:
    return b"%b%d" % (PREFIX.encode(), number)


def bring(one: Cluster, built: BuiltVersion, others: Sequence[BuiltVersion]) -> tuple[float, int]:
    """Bring a version to its readers; seconds from staged to ready, and bytes that were fetched."""
    [node] = one.nodes

    def want(goal: Goal, state: State) -> None:
        active = Goal.RETIRED if goal is Goal.ACTIVE else Goal.ACTIVE
        kept = [other.wanted(active if other is others[-1] else Goal.RETIRED) for other in others]
        one.head.want(**{DATASET: (PREFIX, [*kept, built.wanted(goal)])})
        node.wake()
        node.until(DATASET, built.manifest.version, state)

    want(Goal.STAGED, State.STAGED)
    began = time.perf_counter()
    want(Goal.READY, State.READY)
    took_s = time.perf_counter() - began
    want(Goal.ACTIVE, State.ACTIVE)
    found = node.status().find(DATASET, built.manifest.version)
    assert found is not None
    return took_s, found.bytes_total


def replies(port: int, keys: Sequence[bytes]) -> Iterator[list[bytes | None]]:
    """What clients read of all keys."""
    with Redis(port=port) as client:
        pipeline = client.pipeline(transaction=False)
        remaining = iter(keys)
        while batch := list(islice(remaining, PIPELINE_ROWS)):
            for key in batch:
                pipeline.get(key)
            yield pipeline.execute()


def digests(port: int, keys: Sequence[bytes]) -> list[bytes]:
    """One per key."""
    return [hashlib.blake2b(reply or b"\x00absent", digest_size=8).digest() for batch in replies(port, keys) for reply in batch]


def _built(one: Cluster, full: BuiltVersion, run: int, changed: dict[bytes, bytes | None], rows: int) -> BuiltVersion:
    every = max(1, len(changed) // SAMPLES)
    return build_delta(one.store, full, f"2026-11-22.{run + 2}", changed, whole=(rows, rows), samples_every=every)


def measure(one: Cluster, rows: int, runs: int) -> list[Result]:
    """The full version, a delta per run on it, and at the end a full version of the last delta's rows."""
    partitions = even_ranges(FILES)
    before = full_rows(rows)
    full = build_version(one.store, DATASET, FULL, before, prefix=PREFIX, partitions=partitions, samples_every=rows // SAMPLES)
    bring(one, full, [])
    ready, shares, delta, changed = [], [], full, dict[bytes, bytes | None]()
    for run in range(runs):
        changed = difference(before, run)
        after = {key: value for key, value in {**before, **changed}.items() if value is not None}
        last, delta = delta, _built(one, full, run, changed, len(after))
        took_s, moved = bring(one, delta, [full] if last is full else [full, last])
        ready.append(took_s)
        shares.append(moved / full.manifest.totals.bytes)
    [shard] = one.shards
    keys = [*before, *(key for key in changed if key not in before)]
    of_delta = digests(shard.port, keys)
    same = build_version(one.store, DATASET, "2026-11-23", after, prefix=PREFIX, partitions=partitions, samples_every=rows // SAMPLES)
    full_s, _ = bring(one, same, [full, delta])
    differ = sum(left != right for left, right in zip(of_delta, digests(shard.port, keys), strict=True))
    return [
        Result("bytes fetched, of the full version's", "share", tuple(shares), MOVED_SHARE_MAX, less_is_better=True),
        Result("staged to ready", "s", tuple(ready), READY_S_MAX, less_is_better=True),
        Result("rows that read otherwise than in the full version", "rows", (float(differ),), 0.0, less_is_better=True),
        Result("staged to ready, the full version", "s", (full_s,)),
    ]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="Measure a delta of 1 % on one node.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="rd-") as folder, cluster(Path(folder), 1) as one:
        finish("delta", measure(one, arguments.rows, arguments.runs))


if __name__ == "__main__":
    main()
