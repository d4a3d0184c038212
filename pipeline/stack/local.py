"""The local stack as a whole: SeaweedFS, a Hive metastore, and three nodes of shards and a sidecar, under one folder.

::

    <folder>/stack.json              what was started: ports, pids, start times (StackRecord)
    <folder>/redkv.toml              the settings by which every command finds this cluster
    <folder>/aws/                    credentials and config, as AWS's own tools read them
    <folder>/s3/  metastore/         their data
    <folder>/nodes/<node>/sidecar/   a sidecar's files, and its sidecar.toml
    <folder>/nodes/<node>/shards/    the shards' data directories, each with its shard.toml
    <folder>/logs/                   one log per member

Rules: ports are chosen once and kept, so that a stack comes up again as it was; only processes that stack.json knows are ever stopped.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import httpx
import tomli_w

from pipeline.format.desired import Desired
from pipeline.format.errors import ConflictError, UsageError
from pipeline.format.layout import ShardPaths, desired_key, topology_key
from pipeline.format.records import VersionedRecord
from pipeline.format.slots import even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.settings import ClusterSettings, load_settings
from pipeline.stack.metastore import Metastore
from pipeline.stack.ports import LOOPBACK, free_ports
from pipeline.stack.processes import Program, Running, crash, stop
from pipeline.stack.seaweed import BUCKET, PORT_FLAGS, Seaweed, restored
from pipeline.store import ObjectStore

CLUSTER = "local"
NODES = 3
SHARDS_PER_NODE = 2
ADMIN_SOCKET_BYTES_MAX = 100  # Linux takes 107 bytes for a Unix socket's path; the rest is room for a suffix
SHARD_CACHE_BYTES = 64 << 20  # six shards share one machine


class StackRecord(VersionedRecord):
    """What the folder remembers: ports by flag or member, where the admin sockets lie, and the processes by member."""

    s3_ports: dict[str, int]
    ports: dict[str, int]
    sockets: str
    running: dict[str, Running]


class Stack:
    """One local stack. `start` brings up what is down; nothing runs before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._record_path = self.folder / "stack.json"

    @property
    def exists(self) -> bool:
        """Whether this folder holds a stack, running or not."""
        return self._record_path.is_file()

    @property
    def settings_path(self) -> Path:
        """The settings file by which every command finds this cluster."""
        return self.folder / "redkv.toml"

    @property
    def settings(self) -> ClusterSettings:
        """The settings, with their environment set in this process."""
        return load_settings(self.settings_path)

    @property
    def topology(self) -> Topology:
        """The cluster as `start` laid it out."""
        return _topology(self._record.ports)

    @property
    def metastore(self) -> Metastore:
        """The Hive metastore."""
        return Metastore(self.folder / "metastore", self._record.ports["metastore"])

    @property
    def members(self) -> dict[str, Running]:
        """Every member's process, as started last."""
        return dict(self._record.running)

    def start(self, tell: Callable[[str], None] = lambda _: None) -> list[str]:
        """Bring up every member that is down, and wait until all are ready; the names of those that were started.

        Raises:
            MemberStartError: a member did not come up; what this call started is stopped again.
            UsageError: something that it needs is not installed, or the folder can't be written.
        """
        self._prepare()
        started: list[str] = []
        programs = self._programs()
        try:
            for name in ("s3", "metastore", "shards", "sidecars"):
                batch = [one for one in programs if _batch(one.name) == name and not self._alive(one.name)]
                if name == "shards":
                    self._publish()
                for one in batch:
                    one.check_ports()
                    self._note(one.name, one.start())
                    started.append(one.name)
                for one in batch:
                    one.await_ready(self._record.running[one.name])
                    tell(f"{one.name} is up")
        except BaseException:
            stop(self._record.running[name] for name in reversed(started))
            raise
        return started

    def stop(self) -> list[str]:
        """Stop every member in order; the names of those that ran."""
        if not self.exists:
            return []
        alive = [name for name in self._record.running if self._alive(name)]
        order = sorted(alive, key=lambda name: ("sidecars", "shards", "metastore", "s3").index(_batch(name)))
        stop(self._record.running[name] for name in order)
        self._seaweed().remove_sockets()
        return order

    def kill(self, member: str) -> None:
        """End one member at once, as a crash would."""
        crash(self._member(member))

    def restart(self, member: str) -> None:
        """Start one member again and wait until it is ready; stops it first if it runs."""
        stop([self._member(member)])
        program = next(one for one in self._programs() if one.name == member)
        self._note(member, program.start())
        program.await_ready(self._record.running[member])

    def remove(self) -> None:
        """Stop everything and remove the folder."""
        if self.exists:
            self.stop()
            sockets = Path(self._record.sockets)
            if sockets.is_dir():
                rmtree(sockets)
        rmtree(self.folder, ignore_errors=False)

    def _member(self, name: str) -> Running:
        try:
            return self._record.running[name]
        except KeyError:
            names = ", ".join(self._record.running)
            raise UsageError(f"the stack has no member {name}: it has {names}", member=name) from None

    def _alive(self, name: str) -> bool:
        running = self._record.running.get(name)
        return running is not None and running.alive

    @property
    def _record(self) -> StackRecord:
        return StackRecord.from_json(self._record_path.read_bytes(), str(self._record_path))

    def _save(self, record: StackRecord) -> None:
        fresh = self._record_path.with_suffix(".new")
        fresh.write_bytes(record.to_json())
        fresh.replace(self._record_path)

    def _note(self, name: str, running: Running) -> None:
        record = self._record
        self._save(record.model_copy(update={"running": {**record.running, name: running}}))

    def _prepare(self) -> None:
        """Lay the folder out, once; every file that names ports is written anew, as they are kept in stack.json."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.exists:
                self._first_time()
            record = self._record
            if not Path(record.sockets).is_dir():
                record = record.model_copy(update={"sockets": _socket_folder(self.folder)})
                self._save(record)
            self._write_settings()
        except OSError as refused:
            raise UsageError(f"the stack's folder {self.folder} can't be used: {refused}", folder=str(self.folder)) from refused

    def _first_time(self) -> None:
        seaweed = Seaweed.new(self.folder / "s3")
        seaweed.write_aws_files(self.folder / "aws")
        names = ["metastore", *(name for node in _node_names() for name in (f"{node}-sidecar", *_shard_names(node)))]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        sockets = _socket_folder(self.folder)
        s3_ports = dict(zip(PORT_FLAGS, seaweed.ports, strict=True))
        self._save(StackRecord(s3_ports=s3_ports, ports=ports, sockets=sockets, running={}))

    def _seaweed(self) -> Seaweed:
        return restored(self.folder / "s3", self._record.s3_ports, self.folder / "aws" / "credentials")

    def _write_settings(self) -> None:
        environment = {**self._seaweed().write_aws_files(self.folder / "aws"), "SPARK_LOCAL_IP": LOOPBACK}
        settings = {
            "store": f"s3://{BUCKET}/{CLUSTER}",
            "cluster": CLUSTER,
            "metastore_uris": self.metastore.uri,
            "spark_master": "local[2]",
            "spark_conf": {
                "spark.driver.host": LOOPBACK,
                "spark.driver.bindAddress": LOOPBACK,
                "spark.ui.enabled": "false",
                "spark.sql.warehouse.dir": str(self.metastore.warehouse),
            },
            "environment": environment,
        }
        _write_toml(self.settings_path, settings)
        for node in self.topology.nodes:
            shards = [self._write_shard(node.name, shard) for shard in node.shards]
            sidecar = self.folder / "nodes" / node.name / "sidecar"
            sidecar.mkdir(parents=True, exist_ok=True)
            port = self._record.ports[f"{node.name}-sidecar"]
            own = {
                "node": node.name,
                "data_dir": str(sidecar),
                "store": settings["store"],
                "cluster": CLUSTER,
                "port": port,
                "shards": shards,
            }
            _write_toml(sidecar / "sidecar.toml", own)

    def _write_shard(self, node: str, shard: Shard) -> dict[str, str]:
        data_dir = self.folder / "nodes" / node / "shards" / shard.name
        data_dir.mkdir(parents=True, exist_ok=True)
        admin_socket = str(Path(self._record.sockets) / f"{shard.name}.sock")
        own = {"name": shard.name, "data_dir": str(data_dir), "port": shard.port, "admin_socket": admin_socket}
        _write_toml(data_dir / "shard.toml", {**own, "block_cache_bytes": SHARD_CACHE_BYTES})
        return {"name": shard.name, "data_dir": str(data_dir), "admin_socket": admin_socket}

    def _publish(self) -> None:
        """Put the cluster's documents into the store where they are missing, and the topology beside every shard."""
        settings = self.settings
        store = ObjectStore(settings.store)
        topology = self.topology.to_json()
        first = Desired(cluster=CLUSTER, epoch=1)
        for key, document in ((topology_key(CLUSTER), topology), (desired_key(CLUSTER), first.to_json())):
            with suppress(ConflictError):  # it is there: the stack was up before
                store.create(key, document)
        for node in self.topology.nodes:
            for shard in node.shards:
                place = ShardPaths(self.folder / "nodes" / node.name / "shards" / shard.name).topology
                if not place.exists():
                    place.write_bytes(topology)

    def _programs(self) -> list[Program]:
        logs = self.folder / "logs"
        environment = dict(self.settings.environment)
        programs = [self._seaweed().program(logs / "s3.log"), self.metastore.program(logs / "metastore.log")]
        for node in self.topology.nodes:
            for shard in node.shards:
                config = self.folder / "nodes" / node.name / "shards" / shard.name / "shard.toml"
                programs.append(_python(shard.name, "server", config, logs, {}, shard.port, _ping(shard.port)))
            config = self.folder / "nodes" / node.name / "sidecar" / "sidecar.toml"
            name = f"{node.name}-sidecar"
            programs.append(_python(name, "ingest_sidecar", config, logs, environment, self._record.ports[name], _health(node.sidecar_url)))
        return programs


def _python(
    name: str, module: str, config: Path, logs: Path, environment: dict[str, str], port: int, is_ready: Callable[[], bool]
) -> Program:
    return Program(name, [sys.executable, "-P", "-m", module, "--config", str(config)], environment, logs / f"{name}.log", is_ready, [port])


def _ping(port: int) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False

    return is_ready


def _health(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/v1/health", timeout=1.0).is_success
        except httpx.TransportError:
            return False

    return is_ready


def _batch(name: str) -> str:
    if name in {"s3", "metastore"}:
        return name
    return "sidecars" if name.endswith("-sidecar") else "shards"


def _node_names() -> list[str]:
    return [f"node-{number}" for number in range(1, NODES + 1)]


def _shard_names(node: str) -> list[str]:
    return [f"{node}-{chr(ord('a') + index)}" for index in range(SHARDS_PER_NODE)]


def _topology(ports: dict[str, int]) -> Topology:
    ranges = iter(even_ranges(NODES * SHARDS_PER_NODE))
    nodes = tuple(
        Node(
            name=node,
            sidecar_url=f"http://{LOOPBACK}:{ports[f'{node}-sidecar']}",
            shards=tuple(Shard(name=name, host=LOOPBACK, port=ports[name], slots=(next(ranges),)) for name in _shard_names(node)),
        )
        for node in _node_names()
    )
    return Topology(cluster=CLUSTER, epoch=1, nodes=nodes)


def _socket_folder(folder: Path) -> str:
    """Beside the stack if the paths are short enough, else a private folder of its own."""
    own = folder / "sockets"
    if len(str(own / "node-1-a.sock").encode()) <= ADMIN_SOCKET_BYTES_MAX:
        own.mkdir(mode=0o700, exist_ok=True)
        return str(own)
    return tempfile.mkdtemp(prefix="redkv-")


def _write_toml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
