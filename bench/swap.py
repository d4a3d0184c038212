"""How long a shard takes to open, activate, take back and close a version, by its size: the times that its readers could notice.

One real shard, its admin socket, versions of 100-byte strings ingested as a sidecar does. The floor is on the swap alone: 50 ms are ten
times what a synced write takes on a slow disk, and far below what any client waits.
"""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.harness import RUNS, Result, finish
from pipeline.format.values import encode_string
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

SIZES = (1_000, 100_000, 1_000_000)  # keys
SWAP_MS_MAX = 50.0
VALUE_BYTES = 100


def measure(shard: ShardProcess, keys: int) -> list[Result]:
    """All steps for two versions of so many keys, RUNS times there and back."""
    dataset = f"d{keys}"
    chosen = random.Random(keys)
    for version in ("2026-01-01", "2026-01-02"):
        rows = {b"%b_%d" % (dataset.encode(), number): encode_string(chosen.randbytes(VALUE_BYTES)) for number in range(keys)}
        publish_version(shard.paths, dataset, version, rows, build_id=version)
    times: dict[str, list[float]] = {"open": [], "activate": [], "close": []}
    with RawClient(shard.admin_socket) as admin:
        _timed(admin, "REGISTER", dataset, f"{dataset}_")
        _timed(admin, "ACTIVATE", dataset, "2026-01-01")
        for number in range(RUNS):
            old, new = ("2026-01-01", "2026-01-02") if number % 2 == 0 else ("2026-01-02", "2026-01-01")
            times["open"].append(_timed(admin, "OPEN", dataset, new))
            times["activate"].append(_timed(admin, "ACTIVATE", dataset, new))
            times["close"].append(_timed(admin, "CLOSE", dataset, old))
    return [
        Result(f"{step}, {keys:,} keys", "ms", tuple(values), SWAP_MS_MAX if step != "open" else None, less_is_better=True)
        for step, values in times.items()
    ]


def _timed(admin: RawClient, *words: str) -> float:
    began = perf_counter()
    reply = admin.call("REDKV", *words)
    took_ms = (perf_counter() - began) * 1_000
    if reply != b"+OK\r\n":
        raise RuntimeError(f"REDKV {' '.join(words)} answered {reply!r}")
    return took_ms


def main() -> None:
    """Measure all sizes."""
    with TemporaryDirectory() as folder, running_shards(Path(folder)) as [shard]:
        finish("swap", [one for keys in SIZES for one in measure(shard, keys)])


if __name__ == "__main__":
    main()
