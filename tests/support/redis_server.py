"""A real redis-server as an oracle: in cluster mode, owning all slots, in memory, on loopback; with a replica if wanted."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.resp import RawClient

READY_WAIT_S = 30.0  # a cluster node waits two seconds before it serves


@contextmanager
def running_redis(root: Path, *, cluster: bool = True) -> Iterator[int]:
    """The port of a redis-server that ends with the block."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(root)]
    if cluster:
        command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-announce-ip", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_until_ready(port, cluster=cluster)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def running_pair(root: Path) -> Iterator[tuple[int, int]]:
    """The ports of a primary of all slots and its replica, which serves reads."""
    places = [(root / "redis-1", free_port(), free_port()), (root / "redis-2", free_port(), free_port())]
    with ExitStack() as stack:
        for folder, port, bus in places:
            folder.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
            command += ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--repl-diskless-sync-delay", "0"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        (_, primary, bus), (_, replica, _) = places
        _wait_until_ready(primary)
        _follow(replica, primary, bus)
        yield primary, replica


def _follow(replica: int, primary: int, bus: int) -> None:
    """Make one server the replica of another, and wait until both say so."""
    with RawClient(primary) as owner:
        primary_id = owner.call("CLUSTER", "MYID").split(b"\r\n")[1]
    deadline = time.monotonic() + READY_WAIT_S
    met = asked = False
    while time.monotonic() < deadline:
        try:
            with RawClient(replica) as copy, RawClient(primary) as owner:
                met = met or copy.call("CLUSTER", "MEET", "127.0.0.1", primary, bus) == b"+OK\r\n"
                asked = asked or copy.call("CLUSTER", "REPLICATE", primary_id) == b"+OK\r\n"
                if (
                    asked
                    and b"master_link_status:up" in copy.call("INFO", "replication")
                    and b"state=online" in owner.call("INFO", "replication")
                    and b"cluster_state:ok" in copy.call("CLUSTER", "INFO")
                    and all(b":%d\r\n" % replica in one.call("CLUSTER", "SLOTS") for one in (owner, copy))
                ):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"redis-server on port {replica} does not follow the one on port {primary}")


def _wait_until_ready(port: int, *, cluster: bool = True) -> None:
    deadline = time.monotonic() + READY_WAIT_S
    added = not cluster
    while time.monotonic() < deadline:
        try:
            with RawClient(port) as client:
                added = added or client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"+OK\r\n"
                if not cluster and client.call("PING") == b"+PONG\r\n":
                    return
                if b"cluster_state:ok" in client.call("CLUSTER", "INFO"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"redis-server on port {port} is not ready")
