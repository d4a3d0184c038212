"""What commands work on: the services of the shard, and the state of one client connection. No sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import FormatError
from server.cluster.topology import ClusterView
from server.latency import Latencies
from server.settings import ShardSettings
from server.storage.big import BigCollection
from server.storage.datasets import OpenVersion
from server.storage.engine import Engine, PinnedEngine
from server.storage.packed import FieldFinder
from server.storage.versions import Versions


@dataclass(slots=True)
class Stats:
    """Counters since the start."""

    connections_total: int = 0
    connections_refused: int = 0
    commands_total: int = 0


@dataclass(slots=True)
class Services:
    """What all connections of a shard share."""

    settings: ShardSettings
    run_id: str
    started_ms: int
    engine: Engine
    versions: Versions
    cluster: ClusterView
    stats: Stats = field(default_factory=Stats)
    sessions: dict[int, Session] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    fields: FieldFinder = field(default_factory=FieldFinder)
    admin_lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # admin commands that take several turns run one after the other


class Session:
    """One connection: protocol version, name, and what it reads from (`engine`, which a pin changes)."""

    __slots__ = (
        "admin",
        "closing",
        "created_ms",
        "descriptor",
        "engine",
        "id",
        "last_command",
        "last_ms",
        "library",
        "local",
        "name",
        "peer",
        "pins",
        "redirected",
        "resp",
        "services",
    )

    def __init__(self, services: Services, session_id: int, peer: str, local: str, *, admin: bool, descriptor: int = -1) -> None:
        self.services = services
        self.engine = services.engine
        self.id = session_id
        self.peer = peer
        self.local = local
        self.descriptor = descriptor
        self.admin = admin
        self.redirected = not admin  # the admin socket reads every slot that the shard holds
        self.resp = 2
        self.name = b""
        self.library = {b"lib-name": b"", b"lib-ver": b""}
        self.closing = False
        self.created_ms = self.last_ms = services.engine.clock()
        self.last_command = "NULL"
        self.pins: dict[str, OpenVersion] = {}

    def big(self, key: bytes, slot: int, raw: bytes) -> BigCollection:
        """The big collection whose meta value was read in this turn of the loop.

        Raises:
            FormatError: it is none, or a live one, which nothing writes.
        """
        source = self.engine.version_of(key)
        if source is None:
            raise FormatError(f"the live key {key!r} has the meta value of a big collection, which this server does not write")
        return BigCollection(source, self.services.versions.unpin, key, slot, raw)

    def pin(self, dataset: str, version: str) -> VersionIdentity:
        """Read a dataset from an opened version from now on, instead of from its active one.

        Raises:
            UnknownVersionError: the version is not opened.
        """
        pinned = self.services.versions.pin(dataset, version)
        before = self.pins.pop(dataset, None)
        if before is not None:
            self.services.versions.unpin(before)
        self.pins[dataset] = pinned
        self.engine = PinnedEngine(self.services.engine, self.pins)
        return pinned.identity

    def unpin(self) -> None:
        """Give all pins back."""
        for pinned in self.pins.values():
            self.services.versions.unpin(pinned)
        self.pins.clear()
        self.engine = self.services.engine

    def reset(self) -> None:
        """Back to the state of a new connection."""
        self.unpin()
        self.resp = 2
        self.name = b""
