"""The members of a local stack as programs: what to start, and the question whose answer says that it is ready."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext

import httpx

from pipeline.stack.cluster import sidecar_name
from pipeline.stack.folder import METASTORE, StackFolder
from pipeline.stack.ports import LOOPBACK
from pipeline.stack.processes import Program

ANSWER_WAIT_S = 1.0  # of a question that is asked again
S3 = "s3"


def programs(folder: StackFolder) -> list[Program]:
    """Every member, in the order in which they start; the reverse is the order in which they stop.

    Raises:
        UsageError: something that a member needs is not installed.
    """
    environment = folder.seaweed.write_aws_files(folder.root / "aws")
    shards, sidecars = [], []
    for node in folder.topology.nodes:
        for shard in node.shards:
            config = folder.shard(node.name, shard.name) / "shard.toml"
            log = folder.logs / f"{shard.name}.log"
            shards.append(Program(shard.name, _python("server", config), {}, log, _answers_ping(shard.port), [shard.port]))
        name = sidecar_name(node.name)
        command = _python("ingest_sidecar", folder.sidecar(node.name) / "sidecar.toml")
        port = folder.record.ports[name]
        sidecars.append(Program(name, command, environment, folder.logs / f"{name}.log", _is_healthy(node.sidecar_url), [port]))
    s3 = folder.seaweed.program(folder.logs / f"{S3}.log")
    metastore = folder.metastore.program(folder.logs / f"{METASTORE}.log")
    return [s3, metastore, *shards, *sidecars]


_NO_TLS = SSLContext(PROTOCOL_TLS_CLIENT)  # of loopback addresses; by default, each question reads all certificates of the world first


def _python(module: str, config: Path) -> list[str]:
    return [sys.executable, "-P", "-m", module, "--config", str(config)]  # -P: a folder `server` where it stands is not ours


def _answers_ping(port: int) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=ANSWER_WAIT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False

    return is_ready


def _is_healthy(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/v1/health", timeout=ANSWER_WAIT_S, trust_env=False, verify=_NO_TLS).is_success
        except httpx.TransportError:
            return False

    return is_ready
