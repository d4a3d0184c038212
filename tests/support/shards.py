"""Real shard processes for tests: started with a topology, waited for by their admin socket, stopped by their pid.

`running_shards(root, slots)` is the usual way in. Every process listens on free loopback ports and writes its log to `<data_dir>/log`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SlotRange, even_ranges
from pipeline.format.topology import Node, Shard, Topology
from tests.support.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
START_WAIT_S = 60.0  # a shard starts in about a second; a loaded machine takes longer
STOP_WAIT_S = 60.0  # and it stops in a tenth of one, its last writes brought to the disk


@dataclass
class ShardProcess:
    """One shard process and where to reach it. `options` are further settings, as TOML values; `environment` is for the next start."""

    name: str
    data_dir: Path
    port: int
    options: Mapping[str, int | str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> ShardPaths:
        return ShardPaths(self.data_dir)

    @property
    def admin_socket(self) -> Path:
        return self.data_dir / "admin.sock"

    @property
    def log(self) -> str:
        return (self.data_dir / "log").read_text()

    def start(self) -> None:
        """Start it, and wait until it answers on its admin socket."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.data_dir / "shard.toml"
        lines = [
            f'name = "{self.name}"',
            f'data_dir = "{self.data_dir}"',
            f"port = {self.port}",
            f'admin_socket = "{self.admin_socket}"',
            *(f"{key} = {json.dumps(value)}" for key, value in {"block_cache_bytes": 32 << 20, **self.options}.items()),
        ]
        config.write_text("\n".join(lines))
        self.admin_socket.unlink(missing_ok=True)
        with (self.data_dir / "log").open("ab") as log:
            command = [sys.executable, "-m", "server", "--config", str(config)]
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stderr=log, stdout=log, env={**os.environ, **self.environment})
        deadline = time.monotonic() + START_WAIT_S
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"shard {self.name} ended with {self.process.returncode}:\n{self.log}")
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.admin_socket))
                    return
            except OSError:
                if time.monotonic() > deadline:
                    self.kill()
                    raise AssertionError(f"shard {self.name} does not listen:\n{self.log}") from None
                time.sleep(0.02)

    def stop(self) -> int:
        """Stop it in order; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"shard {self.name} did not stop:\n{self.log}") from None
        self.process = None
        return code

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def follow(self, topology: Topology) -> None:
        """Write the topology file; a running shard reads it on REDKV TOPOLOGY."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.paths.topology.write_bytes(topology.to_json())


def topology_of(shards: Sequence[ShardProcess], ranges: Sequence[Sequence[SlotRange]], epoch: int = 1) -> Topology:
    """A cluster of one node whose shards own `ranges`, one list each."""
    members = tuple(
        Shard(name=shard.name, host="127.0.0.1", port=shard.port, slots=tuple(owned)) for shard, owned in zip(shards, ranges, strict=True)
    )
    return Topology(cluster="test", epoch=epoch, nodes=(Node(name="node-1", sidecar_url="http://127.0.0.1:1", shards=members),))


@contextmanager
def running_shards(root: Path, count: int = 1, options: Mapping[str, int | str] | None = None) -> Iterator[list[ShardProcess]]:
    """Some shards that share all slots evenly; stopped at the end. Keep `root` short: a Unix socket's path is limited."""
    shards = [ShardProcess(f"node-1-{chr(ord('a') + index)}", root / f"s{index}", free_port(), options or {}) for index in range(count)]
    topology = topology_of(shards, [[one] for one in even_ranges(count)])
    with ExitStack() as stack:
        for shard in reversed(shards):
            stack.callback(shard.stop)  # also of the others, if one does not
        for shard in shards:
            shard.follow(topology)
            shard.start()
        yield shards
