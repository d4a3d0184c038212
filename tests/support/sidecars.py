"""Real sidecar processes for tests, and the two documents that they follow.

`NodeUnderTest` is one node: its shards run already, its sidecar is started, killed and asked here. `Head` writes the documents.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import tomli_w

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion
from pipeline.format.layout import NodePaths, desired_key, topology_key
from pipeline.format.records import Mode, VersionedRecord
from pipeline.format.topology import Topology
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.store import ObjectStore
from tests.support.disk import lying_below
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.s3 import S3
from tests.support.shards import REPOSITORY, ShardProcess

WAIT_S = 60.0  # for what takes a second on an idle machine
LOOK_S = 0.02
CLUSTER = "test"
HTTP = httpx.Client(timeout=WAIT_S, limits=httpx.Limits(max_keepalive_connections=0))
"""For all questions: making one takes longer than most answers. No connection is kept, as what is asked is killed and started again."""

T = TypeVar("T")


class Head:
    """The documents of a cluster, as a coordinator writes them; every write has the next epoch."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._etags: dict[str, str] = {}
        self.desired = Desired(cluster=CLUSTER, epoch=0)

    def topology(self, topology: Topology) -> None:
        self._put(topology_key(CLUSTER), topology)

    def want(self, mode: Mode = "replace", /, **datasets: tuple[str, Sequence[DesiredVersion]]) -> int:
        """Write the desired state: dataset=(prefix, versions), anew and whole; its epoch."""
        wanted = {name: DesiredDataset(prefix=prefix, mode=mode, versions=tuple(versions)) for name, (prefix, versions) in datasets.items()}
        self.desired = Desired(cluster=CLUSTER, epoch=self.desired.epoch + 1, datasets=wanted)
        self._put(desired_key(CLUSTER), self.desired)
        return self.desired.epoch

    def add(self, name: str, dataset: DesiredDataset) -> None:
        """Write one dataset anew, beside the others as they are."""
        datasets = {**self.desired.datasets, name: dataset}
        self.desired = Desired(cluster=CLUSTER, epoch=self.desired.epoch + 1, datasets=datasets)
        self._put(desired_key(CLUSTER), self.desired)

    def catch_up(self) -> None:
        """Read what another coordinator wrote, to write after it."""
        blob = self._store.get(desired_key(CLUSTER))
        self.desired, self._etags[desired_key(CLUSTER)] = Desired.from_json(blob.data, "desired"), blob.etag

    def put_back(self, older: Desired) -> None:
        """Write an old document again, as a mistaken restore would."""
        self._put(desired_key(CLUSTER), older)

    def _put(self, key: str, document: VersionedRecord) -> None:
        etag = self._etags.get(key)
        data = document.to_json()
        self._etags[key] = self._store.create(key, data) if etag is None else self._store.replace(key, data, etag)


@dataclass
class NodeUnderTest:
    """One node. `environment` is the AWS chain's; it may lead through a proxy. `options` are further settings."""

    root: Path
    store_url: str
    environment: Mapping[str, str]
    shards: Sequence[ShardProcess]
    options: Mapping[str, object] = field(default_factory=dict)
    name: str = "node-1"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.root / "sidecar"

    @property
    def paths(self) -> NodePaths:
        return NodePaths(self.data_dir)

    @property
    def log(self) -> str:
        return (self.root / "sidecar.log").read_text()

    def start(self) -> None:
        """Start the sidecar, and wait until it answers."""
        self.launch()
        self.until_answers()

    def until_answers(self) -> None:
        """Wait until it answers."""
        self._until("to answer", self._answers)

    def launch(self, more: Mapping[str, str] | None = None) -> None:
        """Start the sidecar, with more in its environment."""
        config = self.root / "sidecar.toml"
        shards = [{"name": one.name, "data_dir": str(one.data_dir), "admin_socket": str(one.admin_socket)} for one in self.shards]
        config.write_text(
            tomli_w.dumps(
                {
                    "node": self.name,
                    "data_dir": str(self.data_dir),
                    "store": self.store_url,
                    "cluster": CLUSTER,
                    "port": self.port,
                    "poll_s": 0.2,
                    "shards": shards,
                    **self.options,
                }
            )
        )
        with (self.root / "sidecar.log").open("ab") as log:
            command = [sys.executable, "-m", "ingest_sidecar", "--config", str(config)]
            environment = {**os.environ, **self.environment, **(more or {})}
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_S)
        finally:
            self.kill()

    def status(self) -> NodeStatus:
        return NodeStatus.from_json(self.ask("GET", "status").content, "status")

    def wake(self) -> None:
        assert self.ask("POST", "wake").status_code == httpx.codes.ACCEPTED

    def control(self, action: str, dataset: str, version: str) -> None:
        answer = self.ask("POST", f"versions/{dataset}/{version}/{action}")
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        """One HTTP question, with the token if the sidecar has one."""
        headers = {"Authorization": f"Bearer {self.options['token']}"} if "token" in self.options else {}
        return HTTP.request(method, f"http://127.0.0.1:{self.port}/v1/{path}", headers=headers, json=body)

    def until(self, dataset: str, version: str, state: State) -> VersionStatus:
        """Wait until a version is in that state; its status. A fatal failure on the way is an AssertionError, and what is waited for if the
        state is FAILED: one that is repeated by itself (a shard, a store that did not answer in time) passes.
        """

        def reached() -> VersionStatus | None:
            found = self.status().find(dataset, version)
            if found is None or found.state is not State.FAILED:
                return found if found is not None and found.state is state else None
            assert found.error is not None
            fatal = found.error["outcome"] == "fatal"
            assert not fatal or state is State.FAILED, found.error
            return found if fatal else None

        return self._until(f"{dataset} {version} to be {state}", reached)

    def until_tried_again(self, dataset: str, version: str) -> None:
        """Wait until a failure stands no more: whoever asked for another try (`wake`, another goal) was answered before it begins."""

        def begun() -> bool:
            found = self.status().find(dataset, version)
            return found is not None and found.state is not State.FAILED

        self._until(f"another try of {dataset} {version}", begun)

    def until_true(self, what: str, look: Callable[[NodeStatus], bool]) -> None:
        """Wait for something in the status."""
        self._until(what, lambda: look(self.status()))

    def staged_files(self) -> list[Path]:
        """All files in staging."""
        return [path for path in lying_below(self.paths.staging) if not path.is_dir()]

    def _answers(self) -> bool:
        try:
            return HTTP.get(f"http://127.0.0.1:{self.port}/v1/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _until(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + WAIT_S
        while True:
            assert self.process is not None
            assert self.process.poll() is None, f"the sidecar ended:\n{self.log}"
            if found := look():
                return found
            assert time.monotonic() < deadline, f"waited for {what}; the log:\n{self.log[-4000:]}"
            time.sleep(LOOK_S)


@contextmanager
def node_under_test(
    root: Path, s3: S3, shards: Sequence[ShardProcess], options: Mapping[str, object] | None = None, through: Proxy | None = None
) -> Iterator[NodeUnderTest]:
    """A node whose sidecar is yet to be started, `through` a proxy if there is one; it is killed at the end."""
    environment = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{through.port}"} if through else s3.environment
    node = NodeUnderTest(root, s3.url, environment, shards, options or {})
    try:
        yield node
    finally:
        node.kill()
