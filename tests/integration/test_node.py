"""`redkv node` with real shards and a real sidecar: it starts them, starts again what is killed, and stops all in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import tomli_w

from pipeline.format.layout import ShardPaths
from pipeline.format.slots import even_ranges
from pipeline.node.status import NodeProcesses, ProcessState, ProcessStatus
from tests.support.ports import free_port
from tests.support.resp import RawClient
from tests.support.shards import REPOSITORY, ShardProcess, topology_of
from tests.support.sidecars import HTTP

WAIT_S = 60.0  # for what takes a second or two on an idle machine
LOOK_S = 0.02
SHARDS = ("node-1-a", "node-1-b")
NO_STORE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "x"}


@dataclass
class NodeProcess:
    """A node of two shards and a sidecar, whose store does not answer."""

    root: Path
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in (*SHARDS, "sidecar")})
    process: subprocess.Popen[bytes] | None = None

    def write(self, **changes: object) -> Path:
        """All settings files; `changes` are of the node's own."""
        shards = [{"name": name, "data_dir": str(self.root / name), "admin_socket": str(self.root / f"{name}.sock")} for name in SHARDS]
        members = [ShardProcess(name, self.root / name, self.ports[name]) for name in SHARDS]
        topology = topology_of(members, [[one] for one in even_ranges(2)])
        for shard in shards:
            place = ShardPaths(self.root / shard["name"]).topology
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(topology.to_json())
            self._toml(shard["name"], {**shard, "port": self.ports[shard["name"]], "block_cache_bytes": 32 << 20})
        own = {"node": "node-1", "data_dir": str(self.root / "sidecar"), "store": "s3://none/test", "cluster": "test"}
        self._toml("sidecar", {**own, "port": self.ports["sidecar"], "shards": shards})
        return self._toml(
            "node",
            {
                "name": "node-1",
                "status_file": str(self.root / "node.json"),
                "log_dir": str(self.root / "logs"),
                "shards": [{"name": name, "config": str(self.root / f"{name}.toml")} for name in SHARDS],
                "sidecar": {"config": str(self.root / "sidecar.toml"), "environment": NO_STORE},
                **changes,
            },
        )

    def start(self) -> None:
        with (self.root / "log").open("ab") as log:
            command = [sys.executable, "-m", "pipeline.cli", "node", "--config", str(self.root / "node.toml")]
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def status(self, name: str) -> ProcessStatus:
        return NodeProcesses.from_json((self.root / "node.json").read_bytes(), "node.json").processes[name]

    def pids(self) -> dict[str, int]:
        """Of all processes, once all of them serve."""
        for name in SHARDS:
            self.until(f"{name} to serve", lambda name=name: self.answers(name))  # type: ignore[misc]  # a default binds the name
        self.until("the sidecar to answer", self.sidecar_answers)
        found = {name: self.status(name).pid for name in self.ports}
        assert None not in found.values(), found
        return {name: pid for name, pid in found.items() if pid is not None}

    def answers(self, name: str) -> bool:
        try:
            with RawClient(self.ports[name]) as client:
                return client.call("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def sidecar_answers(self) -> bool:
        try:
            return HTTP.get(f"http://127.0.0.1:{self.ports['sidecar']}/v1/health").is_success
        except httpx.TransportError:
            return False

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "log").read_text().splitlines() if line.startswith("{")]

    def until(self, what: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not look():
            assert time.monotonic() < deadline, f"waited for {what}:\n{(self.root / 'log').read_text()}"
            time.sleep(LOOK_S)

    def _toml(self, name: str, content: dict[str, Any]) -> Path:
        path = self.root / f"{name}.toml"
        path.write_text(tomli_w.dumps(content))
        return path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path)
    one.write()
    try:
        yield one
    finally:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def gone(pids: dict[str, int]) -> bool:
    return not any(map(lives, pids.values()))


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie; it may go while one looks."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_is_killed_is_started_again_and_the_others_go_on(node: NodeProcess) -> None:
    node.start()
    before = node.pids()
    with RawClient(node.ports["node-1-a"]) as client, RawClient(node.ports["node-1-b"]) as other:
        assert client.call("SET", "{06S}", "x") == b"+OK\r\n"
        os.kill(before["node-1-a"], signal.SIGKILL)
        node.until("the shard to be started again", lambda: node.status("node-1-a").starts == 2)
        assert other.call("PING") == b"+PONG\r\n"
    after = node.pids()
    with RawClient(node.ports["node-1-a"]) as client:
        assert client.call("GET", "{06S}") == b"$1\r\nx\r\n"
    assert after["node-1-a"] != before["node-1-a"]
    assert {name: after[name] for name in ("node-1-b", "sidecar")} == {name: before[name] for name in ("node-1-b", "sidecar")}
    assert (node.status("node-1-a").last_end, node.status("node-1-a").young_ends) == ("signal 9", 1)
    os.kill(before["sidecar"], signal.SIGKILL)
    node.until("the sidecar to be started again", lambda: node.status("sidecar").starts == 2)
    os.kill(before["node-1-b"], signal.SIGTERM)  # an orderly end of one process is an end, too
    node.until("the shard to be started again", lambda: node.status("node-1-b").starts == 2)
    node.pids()
    assert node.status("node-1-b").last_end == "code 0"
    assert [line["process"] for line in node.log() if line["event"] == "ended"] == ["node-1-a", "sidecar", "node-1-b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_the_sidecar_and_then_the_shards(node: NodeProcess, number: int) -> None:
    node.start()
    pids = node.pids()
    with RawClient(node.ports["node-1-a"]) as client:
        assert client.call("SET", "{06S}", "x") == b"+OK\r\n"
    node.signal(number)
    assert node.end() == 0
    assert gone(pids)
    stopped = [line["process"] for line in node.log() if line["event"] == "stopped" and "process" in line]
    assert stopped[0] == "sidecar"
    assert sorted(stopped[1:]) == sorted(SHARDS)
    for name in SHARDS:
        assert json.loads((node.root / "logs" / f"{name}.log").read_text().splitlines()[-1])["event"] == "stopped"
    assert {node.status(name).state for name in node.ports} == {ProcessState.STOPPED}
    node.start()
    node.pids()
    with RawClient(node.ports["node-1-a"]) as client:
        assert client.call("GET", "{06S}") == b"$1\r\nx\r\n"


def test_nothing_outlives_a_killed_node(node: NodeProcess) -> None:
    node.start()
    pids = node.pids()
    node.signal(signal.SIGKILL)
    node.end()
    node.until("the processes to end", lambda: gone(pids))
    node.start()
    assert not set(node.pids().values()) & set(pids.values())


def test_a_crash_loop_is_told_and_holds_nobody_up(node: NodeProcess) -> None:
    config = node.root / "node-1-b.toml"
    config.write_text(config.read_text().replace(f"port = {node.ports['node-1-b']}", "port = 80"))
    node.start()
    node.until("the crash loop", lambda: (node.root / "node.json").exists() and node.status("node-1-b").state is ProcessState.CRASH_LOOP)
    node.until("the other shard", lambda: node.answers("node-1-a"))
    assert node.status("node-1-b").last_end == "code 2"
    (told,) = [line for line in node.log() if "crash loop" in line["event"]]
    assert (told["process"], told["level"]) == ("node-1-b", "error")
    assert "port" in Path(told["log"]).read_text()
    node.signal(signal.SIGTERM)
    assert node.end() == 0


def test_one_node_runs_at_a_time(node: NodeProcess) -> None:
    node.start()
    node.pids()
    command = [sys.executable, "-m", "pipeline.cli", "node", "--config", str(node.root / "node.toml")]
    second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another `redkv node` runs here" in second.stderr
    assert node.answers("node-1-a")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"shards": []}, "shards"),
        ({"shards": [{"name": "a", "config": "/nowhere/a.toml"}]}, "the settings file /nowhere/a.toml of a is not there"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_settings_start_nothing(node: NodeProcess, changes: dict[str, object], what: str) -> None:
    config = node.write(**changes)
    command = [sys.executable, "-m", "pipeline.cli", "node", "--config", str(config)]
    refused = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert what in refused.stderr
    assert not (node.root / "node.json").exists()


@pytest.mark.full  # waits as long as an operator would
def test_a_process_that_does_not_end_is_killed_and_the_node_says_so(node: NodeProcess) -> None:
    node.start()
    pids = node.pids()
    os.kill(pids["node-1-b"], signal.SIGSTOP)
    node.signal(signal.SIGTERM)
    assert node.end() == 1
    assert gone(pids)
    assert [line["process"] for line in node.log() if line["event"] == "had to be killed"] == ["node-1-b"]
