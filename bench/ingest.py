"""What readers notice while a version is loaded beside them: their p99 as the shards count it, phase by phase, over that of idle.

Three nodes serve GETs of one dataset's versions and of another's live keys, and HGETALLs of a third, at half of what they reach. A new
version of the first one (`replace`) is staged, made and activated; then one of the second (`upsert`) is staged, prepared, taken in, and
compacted. Twice idle before each load is the noise (A/A). The same with the throttle off beside it. The curve of one load of each kind,
second by second, is drawn into docs/ingest.svg.

The readers' keys are few: what is measured is the load beside them, not the cold cache of a version just activated. Nodes and readers share
the machine's cores; the object store, and this process, run where those leave one.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench._curve import Curve, draw
from bench._latencies import Latencies, Look, longest_gap_ms, p99_us
from bench._loaded import Loaded
from bench._nodes import Cluster, aside, cluster
from bench._readers import Ask, Readers
from bench.harness import OUTPUT, ROOT, Result, finish
from pipeline.format.desired import Goal
from pipeline.format.records import Mode
from pipeline.format.slots import SLOT_COUNT, SlotRange, even_ranges, key_slot
from pipeline.format.topology import Topology
from pipeline.format.values import canonical_reply, encode_hash, encode_string
from pipeline.load.nodes import Nodes
from pipeline.load.progress import RANK
from pipeline.load.states import State
from pipeline.load.status import NodeStatus
from tests.support.resp import encode_command
from tests.support.versions import build_version

MIB = 1 << 20
MIB_MIN = 1024  # of a version that says something
VALUE_BYTES = 1_000
FILE_BYTES = 64 * MIB  # as the build job cuts them
SIDE_KEYS = 3_000
SAMPLES = 500
FIELDS = 20
HOT_KEYS = 900  # of GETs, and as many of HGETALLs
IDLE_S = 6.0
AFTER_S = 5.0  # of reading what is new, part of the last phase
SATURATION_S = 5.0
LOAD_S_MAX = 120.0  # at the slowest pace, 1 GB takes 20 s
LOOK_S = 0.2  # more often, the looks themselves would be felt
LEVEL0_FILES = 4  # at which RocksDB begins to compact
COMMANDS = ("get", "hgetall")
PHASES: dict[Mode, tuple[str, ...]] = {
    "replace": ("staged", "made", "activated"),
    "upsert": ("staged", "prepared", "taken in", "compacted"),
}
P99_RATIO_MAX: dict[Mode, float] = {"replace": 1.25, "upsert": 1.5}
NOISE_RATIO_MAX = 1.1  # of the noise, where that is more
GAP_MS_MAX = 50.0
SWITCH_S_MAX = 3.0
THROTTLE: dict[str, dict[str, float]] = {"throttle on": {}, "throttle off": {"readers_p99_ms_max": 1e9}}


@dataclass
class Run:
    """One load: the ratio of the second idle to the first, of each phase to the first, the longest gap, seconds, and the curve."""

    noise: float = 1.0
    ratios: dict[str, float] = field(default_factory=dict)
    gap_ms: float = 0.0
    idle_gap_ms: float = 0.0
    switch_s: float = 0.0
    swap_s: float = 0.0
    load_s: float = 0.0
    wrong: int = 0
    curve: Curve = field(default_factory=Curve)


class Bench:
    """The cluster with what it serves, and its loads."""

    def __init__(self, parts: Cluster, mib: int) -> None:
        self.parts = parts
        self._ports = {slot: one.port for one in parts.topology.shards for part in one.slots for slot in range(part.first, part.last + 1)}
        self.asks: dict[int, list[Ask]] = {port: [] for port in self._ports.values()}
        self.loaded = [self._bulk("bulk", mib, "replace"), self._bulk("live", mib, "upsert")]
        source = random.Random(3)
        rows = {
            b"side:%d" % number: encode_hash([(b"field%d" % index, source.randbytes(8).hex().encode()) for index in range(FIELDS)])
            for number in range(SIDE_KEYS)
        }
        side = build_version(parts.store, "side", "2026-01-01", rows, prefix="side:", kind="hash", samples_every=100)
        self._ask_for(b"HGETALL", rows, HOT_KEYS)
        for one in (*self.loaded, Loaded("side", "side:", "replace", parts, side)):
            one.want(Goal.ACTIVE)
            self.until(one, State.ACTIVE)
        self.until_compacted()

    def _bulk(self, name: str, mib: int, mode: Mode) -> Loaded:
        """A dataset of a version's size, some of whose keys are asked for."""
        source, count = random.Random(name), mib * MIB // VALUE_BYTES
        rows = {f"{name}:{number}".encode(): encode_string(source.randbytes(VALUE_BYTES)) for number in range(count)}
        self._ask_for(b"GET", rows, HOT_KEYS // 2)
        files = _files(self.parts.topology, mib * MIB)
        prefix, first, every = f"{name}:", "2026-01-01", count // SAMPLES
        built = build_version(self.parts.store, name, first, rows, prefix=prefix, mode=mode, partitions=files, samples_every=every)
        return Loaded(name, prefix, mode, self.parts, built)

    def _ask_for(self, word: bytes, rows: Mapping[bytes, bytes], count: int) -> None:
        """Let readers ask for some of the keys, by the port of the shard that owns them."""
        for key in random.Random(2).sample(list(rows), count):
            self.asks[self._ports[key_slot(key)]].append((encode_command(word, key), canonical_reply(rows[key])))

    def until(self, loaded: Loaded, state: State) -> None:
        """Wait until all nodes have the newest version of a dataset in that state, or beyond."""
        deadline = time.perf_counter() + LOAD_S_MAX
        with Nodes(self.parts.topology) as nodes:
            while True:
                statuses = nodes.statuses().values()
                found = [one.find(loaded.name, loaded.version) if isinstance(one, NodeStatus) else None for one in statuses]
                if all(one is not None and RANK[one.state] >= RANK[state] for one in found):
                    return
                assert time.perf_counter() < deadline, found
                time.sleep(LOOK_S)

    def until_compacted(self) -> None:
        """Wait until the live databases have nothing left to sort."""
        deadline = time.perf_counter() + LOAD_S_MAX
        while left := [one for one in self.parts.shard_states() if one.live_level0_files >= LEVEL0_FILES or one.live_compaction_bytes]:
            assert time.perf_counter() < deadline, left
            time.sleep(LOOK_S)

    def load(self, loaded: Loaded, readers: Readers, rate: float) -> Run:
        """Idle twice, then one version, under readers."""
        run = Run()
        readers.at(rate)
        with Latencies([one.admin_socket for one in self.parts.shards], COMMANDS) as latencies:
            first = latencies.look()
            time.sleep(IDLE_S)
            second = latencies.look()
            time.sleep(IDLE_S)
            begin = latencies.look()
            idle, noise = p99_us(first, second), p99_us(second, begin)
            run.noise = max(idle, noise) / min(idle, noise)
            run.idle_gap_ms = longest_gap_ms(first, begin)
            loaded.renew()
            looks = [begin]
            for goal, state in ((Goal.STAGED, State.STAGED), (Goal.READY, State.READY), (Goal.ACTIVE, State.ACTIVE)):
                loaded.want(goal)
                self.until(loaded, state)
                looks.append(latencies.look())
            self.until_compacted()
            time.sleep(AFTER_S)
            looks.append(latencies.look())
        _, staged, ready, active, end = looks
        run.load_s, run.switch_s, run.swap_s = active.at - begin.at, active.at - staged.at, active.at - ready.at
        phases = PHASES[loaded.mode]
        ends = [*looks[1 : len(phases)], end]
        for phase, before, after in zip(phases, looks, ends, strict=False):
            run.ratios[phase] = p99_us(before, after) / idle
        run.gap_ms = longest_gap_ms(begin, end)
        run.wrong = readers.at(rate).wrong
        marks = [("load begins", begin), *zip(phases, looks[1:], strict=False)]
        run.curve = _curve([one for one in latencies.looks if first.at <= one.at <= end.at], begin, marks)
        return run

    def saturation(self, readers: Readers) -> float:
        """Reads per second as fast as they go."""
        readers.at(0)
        time.sleep(SATURATION_S)
        seen = readers.at(1.0)
        return seen.reads / seen.seconds


def _files(topology: Topology, size: int) -> list[SlotRange]:
    """The slots of each file, as the build job cuts them: at their size, and where shards begin."""
    shards = [one for shard in topology.shards for one in shard.slots]
    count = -(-size // len(shards) // FILE_BYTES)
    return [
        SlotRange(
            first=whole.first + one.first * (whole.last - whole.first + 1) // SLOT_COUNT,
            last=whole.first + (one.last + 1) * (whole.last - whole.first + 1) // SLOT_COUNT - 1,
        )
        for whole in shards
        for one in even_ranges(count)
    ]


def _curve(looks: list[Look], begin: Look, marks: list[tuple[str, Look]]) -> Curve:
    points = [(after.at - begin.at, p99_us(before, after)) for before, after in pairwise(looks)]
    return Curve(points, [(one.at - begin.at, name) for name, one in marks])


def results_of(mode: Mode, what: str, runs: list[Run], *, counted: bool) -> list[Result]:
    """The figures of some loads; they have floors only if they are `counted`."""
    noise = median(one.noise for one in runs)
    bound: Callable[[float], float | None] = lambda floor: floor if counted else None  # noqa: E731 -- a name for a choice
    dull: Callable[[float], float | None] = lambda floor: floor if counted and mode == "replace" else None  # noqa: E731 -- the same
    results = [Result(f"{what}: idle over idle (A/A)", "ratio of p99", tuple(one.noise for one in runs))]
    for phase in PHASES[mode]:
        floor = bound(max(P99_RATIO_MAX[mode], NOISE_RATIO_MAX * noise))
        values = tuple(one.ratios[phase] for one in runs)
        results.append(Result(f"{what}: p99 until {phase}, over idle", "ratio of p99", values, floor, less_is_better=True))
    gaps = tuple(one.gap_ms for one in runs)
    results += [
        Result(f"{what}: longest gap of a shard's loop", "ms", gaps, dull(GAP_MS_MAX), less_is_better=True),
        Result(f"{what}: the same, idle", "ms", tuple(one.idle_gap_ms for one in runs)),
        Result(f"{what}: staged to active everywhere", "s", tuple(one.switch_s for one in runs), dull(SWITCH_S_MAX), less_is_better=True),
        Result(f"{what}: ready to active everywhere", "s", tuple(one.swap_s for one in runs)),
        Result(f"{what}: the whole load", "s", tuple(one.load_s for one in runs)),
        Result(f"{what}: wrong replies", "reads", tuple(float(one.wrong) for one in runs), bound(0.0), less_is_better=True),
    ]
    return results


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description="Readers' latencies beside a load.")
    parser.add_argument("--mib", type=int, default=MIB_MIN, help="size of the version; the picture in docs/ is of a full one")
    parser.add_argument("--runs", type=int, default=5, help="loads of each kind")
    arguments = parser.parse_args()
    runs: dict[tuple[Mode, str], list[Run]] = {(mode, what): [] for what in THROTTLE for mode in PHASES}
    with TemporaryDirectory(prefix="redkv-bench-") as folder, cluster(Path(folder)) as parts:
        bench = Bench(parts, arguments.mib)
        with Readers(bench.asks) as readers:
            saturation = bench.saturation(readers)
            for pid in (parts.s3.pid, os.getpid()):  # not the readers, which run by now
                aside(pid)
            for what, options in THROTTLE.items():
                parts.restart(options)
                for loaded in bench.loaded:
                    bench.until(loaded, State.ACTIVE)
                    runs[loaded.mode, what] = [bench.load(loaded, readers, saturation / 2) for _ in range(arguments.runs)]
    picture = (ROOT / "docs" if arguments.mib >= MIB_MIN else OUTPUT) / "ingest.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(picture, {f"{mode}, {what}": found[-1].curve for (mode, what), found in runs.items()}, arguments.mib)
    results = [Result("saturation of the readers", "reads/s", (saturation,))]
    for (mode, what), found in runs.items():
        results += results_of(mode, f"{mode}, {what}", found, counted=not THROTTLE[what])
    finish("ingest", results)


if __name__ == "__main__":
    main()
