"""How long `redkv rollback` takes on a version of 1 GB, and what readers notice of it.

Three nodes hold two versions with other bytes under the same keys; readers ask at half of what they reach. The command is the one that a
user types, with the start of its interpreter. As soon as it answers, every reply must be the old version's; the newer one is then activated
again. Latencies are those of a second rollback, whose command runs where nodes and readers leave a core, as it is on another machine in
life; twice idle before it is the noise (A/A).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench._latencies import Latencies, longest_gap_ms, p99_us
from bench._nodes import NODES, Cluster, aside, cluster
from bench._readers import Ask, Readers
from bench.harness import RUNS, Result, finish
from pipeline.format.desired import Goal
from pipeline.format.slots import even_ranges, key_slot
from pipeline.format.values import canonical_reply, encode_string
from pipeline.load.states import State
from tests.support.resp import encode_command
from tests.support.sidecars import CLUSTER
from tests.support.versions import BuiltVersion, build_version

MIB = 1 << 20
OLD, NEW = "2026-01-01", "2026-01-02"
VALUE_BYTES = 1_000
FILE_BYTES = 64 * MIB  # as the build job cuts them
SAMPLES = 500
HOT_KEYS = 900
IDLE_S = 6.0
AFTER_S = 5.0  # of reading the old version
SATURATION_S = 5.0
ANSWER_S_MAX = 2.0
WINDOW_S_MAX = 1.0
P99_RATIO_MAX = 1.25
NOISE_RATIO_MAX = 1.1  # of the noise, where that is more


@dataclass(frozen=True, slots=True)
class Run:
    """One rollback: the second idle over the first, the p99 from the command to AFTER_S beyond it over the first idle, and so on."""

    noise: float
    ratio: float
    answer_s: float
    window_s: float
    gap_ms: float
    wrong: int


class Bench:
    """The cluster with both versions, the newer one active."""

    def __init__(self, parts: Cluster, folder: Path, mib: int) -> None:
        self._parts = parts
        self._config = folder / "redkv.toml"
        lines = (f'store = "{parts.store.root}"', f'cluster = "{CLUSTER}"', 'metastore_uris = "thrift://127.0.0.1:1"')
        self._config.write_text("\n".join(lines), encoding="utf-8")
        ports = {slot: one.port for one in parts.topology.shards for part in one.slots for slot in range(part.first, part.last + 1)}
        self.asks: dict[int, list[Ask]] = {port: [] for port in ports.values()}
        old = self._build(OLD, mib, ports)
        self._want(old.wanted(Goal.ACTIVE), OLD)
        new = self._build(NEW, mib)
        self._want(old.wanted(Goal.RETIRED), NEW, new)

    def _build(self, version: str, mib: int, ports: Mapping[int, int] = {}) -> BuiltVersion:
        """A version of the size; if the `ports` of slots are given, readers will ask for some of its keys, and expect its bytes."""
        source, count = random.Random(version), mib * MIB // VALUE_BYTES
        rows = {f"bulk:{number}".encode(): encode_string(source.randbytes(VALUE_BYTES)) for number in range(count)}
        for key in random.Random(2).sample(list(rows), HOT_KEYS) if ports else ():
            self.asks[ports[key_slot(key)]].append((encode_command(b"GET", key), canonical_reply(rows[key])))
        files = even_ranges(NODES * -(-mib * MIB // NODES // FILE_BYTES))
        return build_version(self._parts.store, "bulk", version, rows, prefix="bulk:", partitions=files, samples_every=count // SAMPLES)

    def _want(self, old: Any, active: str, new: BuiltVersion | None = None) -> None:
        self._parts.head.want(bulk=("bulk:", [old, *((new.wanted(Goal.ACTIVE),) if new else ())]))
        self._parts.wake()
        for node in self._parts.nodes:
            node.until("bulk", active, State.ACTIVE)

    def rollback(self, readers: Readers, rate: float) -> Run:
        """One rollback that is timed; then idle twice, and one whose readers are looked at."""
        answer_s, window_s, wrong = self._timed(readers, rate)
        with Latencies([one.admin_socket for one in self._parts.shards], ("get",)) as latencies:
            first = latencies.look()
            time.sleep(IDLE_S)
            second = latencies.look()
            time.sleep(IDLE_S)
            begin = latencies.look()
            self._redkv("rollback", "bulk", elsewhere=True)
            readers.at(rate)
            time.sleep(AFTER_S)
            end = latencies.look()
        wrong += readers.at(rate).wrong
        self._redkv("activate", "bulk", NEW)
        idle, noise = p99_us(first, second), p99_us(second, begin)
        return Run(
            noise=max(idle, noise) / min(idle, noise),
            ratio=p99_us(begin, end) / idle,
            answer_s=answer_s,
            window_s=window_s,
            gap_ms=longest_gap_ms(begin, end),
            wrong=wrong,
        )

    def _timed(self, readers: Readers, rate: float) -> tuple[float, float, int]:
        """The seconds of the command and of its swap, and the replies after it that were not the old version's."""
        readers.at(rate)
        time.sleep(AFTER_S)
        seen = readers.at(rate)
        if seen.wrong != seen.reads:
            raise RuntimeError(f"{seen.reads - seen.wrong} of {seen.reads} replies were the old version's before the rollback")
        began = time.perf_counter()
        told = self._redkv("rollback", "bulk")
        answer_s = time.perf_counter() - began
        readers.at(rate)
        time.sleep(AFTER_S)
        wrong = readers.at(rate).wrong
        self._redkv("activate", "bulk", NEW)
        return answer_s, told["swap_window_s"], wrong

    def _redkv(self, *words: str, elsewhere: bool = False) -> Any:
        command = [sys.executable, "-m", "pipeline.cli", "--config", str(self._config), *words, "--output", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            if elsewhere:
                aside(running.pid)
            told, _ = running.communicate()
        if running.returncode:
            raise RuntimeError(f"redkv {' '.join(words)} ended with code {running.returncode}")
        return json.loads(told)


def results_of(runs: list[Run], mib: int) -> list[Result]:
    """The figures."""
    ratio_max = max(P99_RATIO_MAX, NOISE_RATIO_MAX * median(one.noise for one in runs))
    ratios = tuple(one.ratio for one in runs)
    return [
        Result(f"redkv rollback of {mib} MiB", "s", tuple(one.answer_s for one in runs), ANSWER_S_MAX, less_is_better=True),
        Result("first to last shard's swap", "s", tuple(one.window_s for one in runs), WINDOW_S_MAX, less_is_better=True),
        Result("idle over idle (A/A)", "ratio of p99", tuple(one.noise for one in runs)),
        Result("p99 over the swap, over idle", "ratio of p99", ratios, ratio_max, less_is_better=True),
        Result("longest gap of a shard's loop", "ms", tuple(one.gap_ms for one in runs)),
        Result("replies after it that are not the old bytes", "reads", tuple(float(one.wrong) for one in runs), 0.0, less_is_better=True),
    ]


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description="The time of a rollback, and its readers' latencies.")
    parser.add_argument("--mib", type=int, default=1024, help="size of each version")
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="redkv-bench-") as folder, cluster(Path(folder)) as parts:
        bench = Bench(parts, Path(folder), arguments.mib)
        with Readers(bench.asks) as readers:
            readers.at(0)
            time.sleep(SATURATION_S)
            seen = readers.at(1.0)
            runs = [bench.rollback(readers, seen.reads / seen.seconds / 2) for _ in range(arguments.runs)]
    finish("rollback", results_of(runs, arguments.mib))


if __name__ == "__main__":
    main()
