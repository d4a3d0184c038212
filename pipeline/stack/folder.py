"""What a local stack's folder holds, and what it remembers.

::

    <folder>/stack.json              ports, and the processes that were started (StackRecord)
    <folder>/stack.lock              held by the command that starts or stops members
    <folder>/redkv.toml              the settings by which every command finds this cluster
    <folder>/aws/                    credentials and config, as AWS's own tools read them
    <folder>/s3/  metastore/         their data
    <folder>/nodes/<node>/sidecar/   a sidecar's files, and its sidecar.toml
    <folder>/nodes/<node>/shards/    the shards' data directories, each with its shard.toml
    <folder>/sockets/                the shards' admin sockets, unless their paths are too long here
    <folder>/logs/                   one log per member

Rules:
- Ports and credentials are chosen once and kept, so that a stack comes up again as it was.
- A folder that holds somebody else's files is refused, and only what is named above is ever removed.
- Settings files are written anew at every start: stack.json is the truth.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import tomli_w

from pipeline.format.errors import UsageError
from pipeline.format.records import VersionedRecord
from pipeline.format.topology import Node, Topology
from pipeline.stack import cluster
from pipeline.stack.metastore import Metastore
from pipeline.stack.ports import LOOPBACK, free_ports
from pipeline.stack.processes import Running
from pipeline.stack.seaweed import BUCKET, PORT_FLAGS, Seaweed, restored

STORE = f"s3://{BUCKET}/{cluster.CLUSTER}"
ADMIN_SOCKET_BYTES_MAX = 100  # Linux takes 107 bytes for a Unix socket's path; the rest is room for a suffix
SHARD_CACHE_BYTES = 64 << 20  # six shards share one machine
METASTORE = "metastore"
_MADE_FIRST = {"aws", "sockets", "stack.lock", "stack.new"}  # what a first start that was cut short may leave
_MADE = {*_MADE_FIRST, "logs", METASTORE, "nodes", "redkv.toml", "s3", "stack.json"}
_HEAD = "# Written by `redkv up`, anew each time.\n"


class StackRecord(VersionedRecord):
    """What the folder remembers: ports by flag or member, where the admin sockets lie, and the processes by member."""

    s3_ports: dict[str, int]
    ports: dict[str, int]
    sockets: str
    running: dict[str, Running]


class StackFolder:
    """One folder: its paths, its record, its files."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.logs = self.root / "logs"
        self.settings = self.root / "redkv.toml"
        self._record = self.root / "stack.json"

    @property
    def exists(self) -> bool:
        """Whether a stack was made here."""
        return self._record.is_file()

    @property
    def record(self) -> StackRecord:
        """What is remembered.

        Raises:
            UsageError: there is no stack here.
        """
        if not self.exists:
            raise UsageError(f"there is no stack in {self.root}: run `redkv up`", folder=str(self.root))
        return StackRecord.from_json(self._record.read_bytes(), str(self._record))

    @property
    def topology(self) -> Topology:
        """The cluster as it was laid out."""
        return cluster.topology(self.record.ports)

    @property
    def metastore(self) -> Metastore:
        """The Hive metastore."""
        return Metastore(self.root / METASTORE, self.record.ports[METASTORE])

    @property
    def seaweed(self) -> Seaweed:
        """The S3."""
        return restored(self.root / "s3", self.record.s3_ports, self.root / "aws" / "credentials")

    def shard(self, node: str, shard: str) -> Path:
        """A shard's data directory."""
        return self.root / "nodes" / node / "shards" / shard

    def sidecar(self, node: str) -> Path:
        """A sidecar's data directory."""
        return self.root / "nodes" / node / "sidecar"

    def note(self, member: str, running: Running) -> None:
        """Remember a process."""
        record = self.record
        self._save(record.model_copy(update={"running": {**record.running, member: running}}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from starting or stopping members meanwhile. The lock goes with this process, however it ends.

        Raises:
            UsageError: another command has it, or the folder can't be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "stack.lock").open("w")
        except OSError as refused:
            raise UsageError(f"the stack's folder {self.root} can't be used: {refused}", folder=str(self.root)) from refused
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                message = f"another command starts or stops the stack in {self.root}: wait until it is done"
                raise UsageError(message, folder=str(self.root)) from held
            yield

    def prepare(self) -> None:
        """Make what is missing, and write the settings.

        Raises:
            UsageError: the folder can't be written, or holds somebody else's files.
        """
        try:
            if not self.exists:
                self._first_time()
            record = self.record
            if not Path(record.sockets).is_dir():
                self._save(record.model_copy(update={"sockets": self._socket_folder()}))
            self._write_settings()
        except OSError as refused:
            raise UsageError(f"the stack's folder {self.root} can't be used: {refused}", folder=str(self.root)) from refused

    def remove_sockets(self) -> None:
        """Remove what lies outside the data: the sockets of members that are stopped."""
        self.seaweed.remove_sockets()
        sockets = Path(self.record.sockets)
        if sockets.is_dir():
            rmtree(sockets)

    def remove(self) -> None:
        """Remove everything that the stack made; the folder too, if nothing else is in it."""
        # The record goes last: while it is there, the same command can be run again.
        for name in sorted(_MADE, key=lambda one: (one in {"stack.json", "stack.lock"}, one)):
            path = self.root / name
            if path.is_dir():
                rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not any(self.root.iterdir()):
            self.root.rmdir()

    def _save(self, record: StackRecord) -> None:
        fresh = self.root / "stack.new"
        fresh.write_bytes(record.to_json())
        fresh.replace(self._record)

    def _first_time(self) -> None:
        foreign = sorted(path.name for path in self.root.iterdir() if path.name not in _MADE_FIRST)
        if foreign:
            message = f"{self.root} is no stack's folder, and holds {', '.join(foreign[:5])}: choose an empty or new one with --dir"
            raise UsageError(message, folder=str(self.root))
        names = [METASTORE, *cluster.port_names()]
        ports = free_ports(len(PORT_FLAGS) + len(names))
        seaweed = Seaweed.new(self.root / "s3", ports[: len(PORT_FLAGS)])
        seaweed.write_aws_files(self.root / "aws")
        s3_ports = dict(zip(PORT_FLAGS, seaweed.ports, strict=True))
        own_ports = dict(zip(names, ports[len(PORT_FLAGS) :], strict=True))
        self._save(StackRecord(s3_ports=s3_ports, ports=own_ports, sockets=self._socket_folder(), running={}))

    def _socket_folder(self) -> str:
        """In the stack's folder if the paths are short enough, else a private folder of its own."""
        own = self.root / "sockets"
        if len(str(own / "node-1-a.sock").encode()) <= ADMIN_SOCKET_BYTES_MAX:
            own.mkdir(mode=0o700, exist_ok=True)
            return str(own)
        return tempfile.mkdtemp(prefix="redkv-")

    def _write_settings(self) -> None:
        metastore = self.metastore
        settings = {
            "store": STORE,
            "cluster": cluster.CLUSTER,
            "metastore_uris": metastore.uri,
            "spark_master": "local[2]",
            "log_dir": str(self.logs),
            "spark_conf": {
                "spark.driver.host": LOOPBACK,
                "spark.driver.bindAddress": LOOPBACK,
                "spark.ui.enabled": "false",
                "spark.sql.warehouse.dir": str(metastore.warehouse),
                "spark.hadoop.hive.downloaded.resources.dir": str(metastore.folder / "resources"),  # else Hive leaves one in /tmp
            },
            "environment": {**self.seaweed.write_aws_files(self.root / "aws"), "SPARK_LOCAL_IP": LOOPBACK},
        }
        _write_toml(self.settings, settings)
        for node in self.topology.nodes:
            self._write_node(node)

    def _write_node(self, node: Node) -> None:
        record = self.record
        shards = []
        for shard in node.shards:
            data_dir = self.shard(node.name, shard.name)
            known = {"name": shard.name, "data_dir": str(data_dir), "admin_socket": str(Path(record.sockets) / f"{shard.name}.sock")}
            _write_toml(data_dir / "shard.toml", {**known, "port": shard.port, "block_cache_bytes": SHARD_CACHE_BYTES})
            shards.append(known)
        sidecar = self.sidecar(node.name)
        own = {"node": node.name, "data_dir": str(sidecar), "store": STORE, "cluster": cluster.CLUSTER}
        port = record.ports[cluster.sidecar_name(node.name)]
        _write_toml(sidecar / "sidecar.toml", {**own, "port": port, "shards": shards})


def _write_toml(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_HEAD + tomli_w.dumps(content), encoding="utf-8")
