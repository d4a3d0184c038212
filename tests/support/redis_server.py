"""A real redis-server as an oracle: in cluster mode, owning all slots, in memory, on loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.resp import RawClient
from tests.support.shards import free_port

READY_WAIT_S = 30.0  # a cluster node waits two seconds before it serves


@contextmanager
def running_redis(root: Path) -> Iterator[int]:
    """The port of a redis-server that ends with the block."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(root)]
    command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_until_ready(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_WAIT_S
    added = False
    while time.monotonic() < deadline:
        try:
            with RawClient(port) as client:
                added = added or client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"+OK\r\n"
                if b"cluster_state:ok" in client.call("CLUSTER", "INFO"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"redis-server on port {port} is not ready")
