"""The demo, `make demo`: a real cluster on this machine takes real Hive tables while clients read, and every row is compared.

It brings the local stack up in a folder of its own, creates the tables, starts a client process, loads four datasets through the `redkv`
command, loads a second version of one over the first, and compares every row of every table with what redis-py's RedisCluster reads. It
exits 0 only if nothing differs and no client met an error. At the end everything is stopped and removed; `--keep` leaves it running.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from shutil import rmtree, which
from typing import Any

from redis.cluster import RedisCluster

from examples.nycflights import data
from examples.nycflights.compare import absent, compare, connect
from examples.nycflights.expected import DATASETS, Expected
from examples.nycflights.report import Compared, console, print_comparison, print_loads, print_readers
from examples.nycflights.running import DemoError, create_tables, end_on_signal, run, timed
from examples.nycflights.traffic import LIVE_KEYS, Seen, Traffic, Versions, live_key, live_value
from pipeline.format.errors import RedkvError, UsageError
from pipeline.stack.local import Stack

SPECS = Path(__file__).parent
FOLDER = SPECS.parents[1] / "build" / "demo"  # removed at the start and at the end of every run
LOAD_S_MAX = 600.0
COMMAND_S_MAX = 60.0
READS_ALONE = 4_000  # of a phase without a load: enough for a p99, a few seconds
TRAFFIC_KEYS = 2_000  # keys per dataset that the client process reads
TRAFFIC_MEMBERS_MAX = 200  # longer sorted sets would measure redis-py's parser
SEED = 13

SHOWN = (
    ("HGETALL", "{plane}_N14228"),
    ("ZRANGE", "route:JFK-LAX", "0", "4", "WITHSCORES"),
    ("HGETALL", "flight:2013-01-01T10:00:00Z:UA:1545"),
    ("GET", "airport:JFK"),
)


class Demo:
    """One run: the stack, the tables, the loads, the comparison."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack(folder / "stack")
        self.expected = Expected(folder / "csv")
        self.loads: list[dict[str, Any]] = []

    def run(self) -> None:
        """All steps.

        Raises:
            DemoError, RedkvError: something failed or differs.
        """
        with timed("The cluster is up: S3, Hive metastore, 3 nodes with 2 shards and a sidecar each"):
            self.stack.start()
        with timed("The Hive tables are there: flights (ORC, by month), planes (Parquet, by day), airports (ORC)"):
            self._create_tables()
        host, port = self.address
        with connect(host, port) as cluster:
            for number in range(LIVE_KEYS):
                cluster.set(live_key(number), live_value(number))
            with Traffic(host, port, self._traffic_keys(), SEED) as traffic:
                self._load_all(traffic)
                seen = traffic.finish()
            with timed("Every row was compared"):
                compared = [self._compare(cluster, dataset) for dataset in DATASETS]
        self._show_commands()
        print_loads(self.loads)
        print_readers(seen)
        print_comparison(compared)
        self._judge(seen, compared)

    @property
    def address(self) -> tuple[str, int]:
        """Where clients start: any shard."""
        shard = self.stack.topology.shards[0]
        return shard.host, shard.port

    def _create_tables(self) -> None:
        create_tables(self.folder / "csv", self.config, self.folder / "tables.log")

    @property
    def config(self) -> Path:
        """The settings of the cluster."""
        return self.stack.settings_path

    def _load_all(self, traffic: Traffic) -> None:
        first, second = data.DAYS
        traffic.measure("nothing is loaded", READS_ALONE)
        for dataset in DATASETS:
            traffic.phase(f"loading {dataset}")
            self._load(dataset, first)
        traffic.measure("all is loaded", READS_ALONE)
        traffic.phase("swapping plane")
        self._load("plane", second)
        traffic.phase("loading plane again")
        if self._redkv_load("plane", second)["changed"]:
            raise DemoError("loading the same version again changed something")
        traffic.measure("all is swapped", READS_ALONE)

    def _load(self, dataset: str, day: str) -> None:
        with timed(f"{dataset} {day} is active"):
            self.loads.append(self._redkv_load(dataset, day))

    def _redkv_load(self, dataset: str, day: str) -> dict[str, Any]:
        return self._redkv("load", str(SPECS / f"{dataset}.yaml"), "--version", day, timeout_s=LOAD_S_MAX)

    def _redkv(self, *arguments: str, timeout_s: float = COMMAND_S_MAX) -> dict[str, Any]:
        """A command of the real command line; its progress goes to this terminal, its JSON answer comes back."""
        command = [_redkv_path(), "--config", str(self.config), *arguments, "--output", "json"]
        status, output = run(command, timeout_s, stdout=subprocess.PIPE)
        if status:
            raise DemoError(f"`{shlex.join(command)}` ended with {status}")
        answer: dict[str, Any] = json.loads(output)
        return answer

    def _traffic_keys(self) -> dict[bytes, Versions]:
        """A sample of every dataset's keys, with all that they may hold, in the order of the versions."""
        chosen: dict[bytes, Versions] = {}
        first, second = data.DAYS
        for dataset in DATASETS:
            before, after = dict(self.expected.pairs(dataset, first)), None
            if dataset == "plane":
                after = dict(self.expected.pairs(dataset, second))
            short = [key for key, value in before.items() if not isinstance(value, list) or len(value) <= TRAFFIC_MEMBERS_MAX]
            for key in Random(SEED).sample(short, min(TRAFFIC_KEYS, len(short))):
                chosen[key] = (None, before[key]) if after is None else (None, before[key], after.get(key))
        return chosen

    def _compare(self, cluster: RedisCluster, dataset: str) -> Compared:
        first, second = data.DAYS
        day = second if dataset == "plane" else first
        found = compare(cluster, self.expected.pairs(dataset, day))
        rows = self.expected.rows[dataset]
        if dataset == "plane":
            gone = {key for key, _ in self.expected.pairs(dataset, first)} - {key for key, _ in self.expected.pairs(dataset, day)}
            absent(cluster, gone, found)
        counted = self._counted(dataset, day)
        if counted != found.keys:
            found.differs(f"the shards count {counted} keys, the table makes {found.keys}")
        loaded = next(one for one in self.loads if (one["dataset"], one["version"]) == (dataset, day))
        told = (loaded["source_rows"], loaded["skipped"], loaded["keys"])
        if told != (rows, rows - found.elements, found.keys):
            found.differs(
                f"the load reports {told[0]} rows, {told[1]} skipped, {told[2]} keys; the file says {rows} rows, {found.keys} keys"
            )
        return Compared(dataset, day, rows, counted, found)

    def _counted(self, dataset: str, version: str) -> int:
        """The keys of a version that all shards hold."""
        nodes = self._redkv("status", dataset)["nodes"].values()
        versions = [one for node in nodes for one in node["datasets"][dataset] if one["version"] == version]
        return sum(shard["keys"] for one in versions for shard in one["shards"].values())

    def _show_commands(self) -> None:
        for command in self.shown_commands():
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
            lines = done.stdout.splitlines()
            if done.returncode or not any(lines):
                raise DemoError(f"`{shlex.join(command)}` answers {done.stdout}{done.stderr}")
            console.print(f"$ {shlex.join(command)}", style="bold", markup=False)
            console.print("  " + " ".join(lines), markup=False)

    def shown_commands(self) -> list[list[str]]:
        """Commands of redis-cli that read the loaded data."""
        host, port = self.address
        return [["redis-cli", "-c", "-h", host, "-p", str(port), *words] for words in SHOWN]

    @staticmethod
    def _judge(seen: Seen, compared: list[Compared]) -> None:
        mismatches = sum(one.found.mismatches for one in compared)
        rows = sum(one.found.elements for one in compared)
        skipped = sum(one.rows - one.found.elements for one in compared)
        console.print(f"rows read back: {rows:,}   skipped by rule: {skipped:,}", style="bold")
        console.print(f"client errors: {seen.failed}   mismatches: {mismatches}", style="bold")
        if mismatches or seen.failed:
            raise DemoError(f"{mismatches} mismatches, {seen.failed} client errors or wrong replies")


def _redkv_path() -> str:
    found = which("redkv", path=str(Path(sys.executable).parent))
    if found is None:
        raise UsageError("the command redkv is not installed beside this Python: run `make env`")
    return found


def _say_how_to_go_on(demo: Demo) -> None:
    console.print("\nThe stack stays up. Read from it:", style="bold")
    for command in demo.shown_commands():
        console.print(f"  {shlex.join(command)}", markup=False)
    redkv = f"{_redkv_path()} --config {demo.config}"
    console.print(f"See it:    {redkv} status", markup=False, soft_wrap=True)
    console.print(f"Stop it:   {_redkv_path()} down --dir {demo.stack.folder} --purge", markup=False, soft_wrap=True)


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Load real tables into a local cluster under client traffic, and compare every row.")
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end")
    arguments = parser.parse_args()
    end_on_signal()
    demo = Demo(FOLDER)
    if demo.stack.exists:
        demo.stack.remove()  # of a run that was kept
    rmtree(demo.folder, ignore_errors=True)
    data.extract(demo.folder / "csv")
    try:
        demo.run()
    except (DemoError, RedkvError, subprocess.TimeoutExpired) as failed:
        demo.stack.stop()
        console.print(f"[red]failed[/] {type(failed).__name__}: ", end="")
        console.print(str(failed), markup=False)
        console.print(f"The logs are in {demo.stack.folder / 'logs'}.")
        return 1
    except KeyboardInterrupt:
        demo.stack.stop()
        console.print("interrupted; everything is stopped")
        return 128 + signal.SIGINT
    except BaseException:
        demo.stack.stop()
        raise
    if arguments.keep:
        _say_how_to_go_on(demo)
    else:
        demo.stack.remove()
        rmtree(demo.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
