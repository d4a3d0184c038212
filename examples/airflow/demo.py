"""The Airflow demo, `make demo-airflow`: a real Airflow loads real tables into a real cluster, all on this machine.

It brings up the local stack and an Airflow of its own, and starts DAG runs over the REST API: the first version of all four datasets; the
next partition of one, which swaps; and a rebuild of that, of which one file is damaged in the store before the nodes fetch it, which ends
red, while clients read on. Every row is compared after each. At the end everything is stopped and removed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from shutil import rmtree

import httpx
from redis.cluster import RedisCluster

from examples.airflow.pictures import take_pictures
from examples.airflow.server import Api, LocalAirflow
from examples.nycflights import data
from examples.nycflights.compare import absent, compare, connect
from examples.nycflights.expected import DATASETS, Expected
from examples.nycflights.report import console
from examples.nycflights.running import DemoError, create_tables, end_on_signal, timed
from pipeline.format.errors import RedkvError
from pipeline.stack.local import Stack
from pipeline.store import ObjectStore

REPOSITORY = Path(__file__).parents[2]
SPECS = REPOSITORY / "examples" / "nycflights"
FOLDER = REPOSITORY / "build" / "demo-airflow"  # removed at the start and at the end of every run
POOL = "redkv"
RUN_S_MAX = 400.0  # of a run that may wait for three others' places in the pool
STEP_S_MAX = 120.0
WAITS = ("stage", "ingest", "activate")
DEFERRED = "Pausing task as DEFERRED"  # what Airflow writes into the log of a task that goes on in the triggerer


class Demo:
    """One run of the demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack(folder / "stack")
        self.airflow = LocalAirflow(folder / "airflow", SPECS, self.stack.settings_path)
        self.expected = Expected(folder / "csv")

    def run(self, pictures: Path | None) -> None:
        """All steps.

        Raises:
            DemoError, RedkvError: something failed or differs.
        """
        first, second = data.DAYS
        with timed("The cluster is up: S3, Hive metastore, 3 nodes with 2 shards and a sidecar each"):
            self.stack.start()
        with timed("The Hive tables are there"):
            create_tables(self.folder / "csv", self.stack.settings_path, self.folder / "tables.log")
        with timed(f"Airflow is up: {self.airflow.url}"):
            self.airflow.start(os.environ["PATH"])
        api = self.airflow.api()
        api.set_pool(POOL, 1)
        shard = self.stack.topology.shards[0]
        with connect(shard.host, shard.port) as cluster:
            with timed(f"All four datasets are loaded, each by its DAG, in the pool's one place: {', '.join(DATASETS)}"):
                self._load_all(api, first)
            with timed("Every row of all tables is what the files say"):
                for dataset in DATASETS:
                    self._compare(cluster, dataset, first)
            with timed(f"The next partition of plane is loaded, and swapped in: {second}"):
                self._ends(api, "plane", self._trigger(api, "plane", second), "success")
                self._compare(cluster, "plane", second, gone=first)
            with timed("A rebuild of it, with a damaged file, ended red; its log names node and file"):
                red = self._damaged(api, second)
            with timed(f"Clients read {second} as before"):
                self._compare(cluster, "plane", second, gone=first)
        if pictures is not None:
            with timed(f"Pictures of Airflow's pages are in {pictures}"):
                take_pictures(self.airflow.url, api.token, "redkv_plane", red, pictures)

    def _load_all(self, api: Api, day: str) -> None:
        for dataset in DATASETS:
            api.await_dag(f"redkv_{dataset}")
        runs = {dataset: self._trigger(api, dataset, day) for dataset in DATASETS}
        for dataset, run_id in runs.items():
            self._ends(api, dataset, run_id, "success")

    @staticmethod
    def _trigger(api: Api, dataset: str, day: str) -> str:
        return api.trigger(f"redkv_{dataset}", f"{day}T00:00:00Z")

    @staticmethod
    def _ends(api: Api, dataset: str, run_id: str, wanted: str) -> None:
        dag_id = f"redkv_{dataset}"
        state = api.await_run(dag_id, run_id, RUN_S_MAX)
        tasks = {name: one["state"] for name, one in api.tasks(dag_id, run_id).items()}
        if state != wanted:
            logs = "\n".join(api.log(dag_id, run_id, name, 1) for name, one in tasks.items() if one in {"failed", "up_for_retry"})
            raise DemoError(f"run {run_id} of {dag_id} ended as {state}: {tasks}\n{logs}")
        if wanted == "success":
            stayed = [name for name in WAITS if DEFERRED not in api.log(dag_id, run_id, name)]
            if stayed:
                raise DemoError(f"{', '.join(stayed)} of {dag_id} did not wait in the triggerer")

    def _damaged(self, api: Api, day: str) -> str:
        """A rebuild that finds one file damaged: the pool is closed between its build and its stage, so that there is time to do it."""
        run_id = api.trigger("redkv_plane", f"{day}T12:00:00Z", {"version": day, "rebuild": True})
        api.await_task("redkv_plane", run_id, "build", "running", STEP_S_MAX)
        api.set_pool(POOL, 0)
        api.await_task("redkv_plane", run_id, "build", "success", STEP_S_MAX)
        victim = _damage(ObjectStore(self.stack.settings.store), f"datasets/plane/versions/{day}.2/")
        api.set_pool(POOL, 1)
        self._ends(api, "plane", run_id, "failed")
        log = api.log("redkv_plane", run_id, "stage")
        what = rf"step stage of plane {day}\.2 failed on node-\d: ChecksumMismatchError: [^\n]*{re.escape(victim)}"
        told = re.search(rf"{what}[^\n]*?\(who must act: [^)]*\)", log)
        if told is None:
            raise DemoError(f"the log of stage does not name node and file:\n{log}")
        console.print(f"  {told.group()}", markup=False)
        return run_id

    def _compare(self, cluster: RedisCluster, dataset: str, day: str, gone: str | None = None) -> None:
        """Every row against the cluster; keys that only version `gone` had must be absent."""
        found = compare(cluster, self.expected.pairs(dataset, day))
        if gone is not None:
            before, after = (dict(self.expected.pairs(dataset, one)) for one in (gone, day))
            absent(cluster, before.keys() - after.keys(), found)
        if found.mismatches:
            raise DemoError(f"{found.mismatches} rows of {dataset} differ: {'; '.join(found.shown)}")
        console.print(f"  {dataset} {day}: {found.keys:,} keys, {found.elements:,} rows read back, 0 differ", markup=False)


def _damage(store: ObjectStore, root: str) -> str:
    """Flip one bit in one SST of a version; its object key."""
    victim = next(one.key for one in store.list(root) if one.key.endswith(".sst"))
    raw = bytearray(store.get(victim).data)
    raw[len(raw) // 2] ^= 1
    store.delete(victim)
    store.create(victim, bytes(raw))
    return victim


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Load real tables into a local cluster by a real Airflow.")
    parser.add_argument("--pictures", action="store_true", help="take pictures of Airflow's pages into docs/ (needs chromium)")
    arguments = parser.parse_args()
    end_on_signal()
    demo = Demo(FOLDER)
    if demo.stack.exists:
        demo.stack.remove()  # of a run that was killed
    rmtree(demo.folder, ignore_errors=True)
    data.extract(demo.folder / "csv")
    try:
        demo.run(REPOSITORY / "docs" if arguments.pictures else None)
    except (DemoError, RedkvError, subprocess.SubprocessError, httpx.HTTPError) as failed:
        console.print(f"[red]failed[/] {type(failed).__name__}: ", end="")
        console.print(str(failed), markup=False)
        console.print(f"The logs are in {demo.airflow.logs} and {demo.stack.folder / 'logs'}.")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 128 + signal.SIGINT
    finally:
        demo.airflow.stop()
        demo.stack.stop()
    demo.stack.remove()
    rmtree(demo.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
