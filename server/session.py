"""What commands work on: the services of the shard, and the state of one client connection. No sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from pipeline.format.admin import VersionIdentity
from server.cluster.topology import ClusterView
from server.config import RuntimeConfig
from server.latency import Latencies
from server.net.pause import Pause
from server.net.turn import Turn
from server.observe.commands import CommandStats
from server.observe.slowlog import SlowLog
from server.observe.sparing import SparingLog
from server.settings import ShardSettings
from server.storage.big import BigCollection
from server.storage.cursors import Cursors
from server.storage.datasets import OpenVersion
from server.storage.engine import Engine, PinnedEngine
from server.storage.gate import Gate
from server.storage.packed import FieldFinder
from server.storage.picks import Picks
from server.storage.upserts import Upserts
from server.storage.versions import Versions
from server.storage.walsync import WalSync
from server.upkeep import Upkeep
from server.watching import Watching

if TYPE_CHECKING:
    from server.commands.registry import Command
    from server.commands.transactions import Queue


@dataclass(slots=True)
class Stats:
    """Counters since the start, or since CONFIG RESETSTAT."""

    connections_total: int = 0
    connections_refused: int = 0
    commands_total: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    auth_failures: int = 0
    clients_cut_output: int = 0
    clients_closed_idle: int = 0
    protocol_errors: int = 0
    commands_per_s: float = 0.0
    input_bytes_per_s: float = 0.0
    output_bytes_per_s: float = 0.0
    looked: tuple[float, int, int, int] = (0.0, 0, 0, 0)

    def look(self, now_s: float) -> None:
        """Take the rates since the last look."""
        before_s, commands, received, sent = self.looked
        self.looked = (now_s, self.commands_total, self.input_bytes, self.output_bytes)
        if before_s and (passed_s := now_s - before_s) > 0:
            self.commands_per_s = (self.commands_total - commands) / passed_s
            self.input_bytes_per_s = (self.input_bytes - received) / passed_s
            self.output_bytes_per_s = (self.output_bytes - sent) / passed_s

    def reset(self) -> None:
        """Count from zero."""
        self.connections_total = self.connections_refused = self.commands_total = self.input_bytes = self.output_bytes = 0
        self.auth_failures = self.clients_cut_output = self.clients_closed_idle = self.protocol_errors = 0
        self.looked = (0.0, 0, 0, 0)


class Client(Protocol):
    """What commands may do with a connection."""

    def abort(self) -> None:
        """Close it at once."""

    def guard(self, *, on: bool) -> None:
        """Whether it is one that has not authenticated."""

    def unsent_bytes(self) -> int:
        """Replies that the kernel has not taken yet."""

    def unparsed_bytes(self) -> int:
        """What is received of an unfinished command."""


@dataclass(slots=True)
class Services:
    """What all connections of a shard share."""

    settings: ShardSettings
    table: dict[bytes, Command]
    run_id: str
    started_ms: int
    engine: Engine
    versions: Versions
    cluster: ClusterView
    wal: WalSync
    watching: Watching
    turn: Turn
    upserts: Upserts
    config: RuntimeConfig
    cursors: Cursors
    upkeep: Upkeep
    commands: CommandStats
    slowlog: SlowLog
    pause: Pause
    warnings: SparingLog
    stop: asyncio.Event = field(default_factory=asyncio.Event)  # set it, and the shard ends in order
    stats: Stats = field(default_factory=Stats)
    sessions: dict[int, Session] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    fields: FieldFinder = field(default_factory=FieldFinder)
    picks: Picks = field(default_factory=lambda: Picks(Random()))
    gate: Gate = field(default_factory=Gate)
    admin_lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # admin commands that take several turns run one after the other


RUN_COMMANDS_FIRST = 16  # of a new connection, which may ask for large values as well as for small ones


class Session:
    """One connection: protocol version, name, and what it reads from (`engine`, which a pin changes); `readonly` since READONLY."""

    __slots__ = (
        "admin",
        "client",
        "closing",
        "created_ms",
        "descriptor",
        "engine",
        "id",
        "last_command",
        "last_ms",
        "library",
        "local",
        "locked",
        "name",
        "peer",
        "pins",
        "queue",
        "readonly",
        "redirected",
        "resp",
        "run_commands_max",
        "services",
        "silent",
        "spoiled",
        "watched",
    )

    def __init__(self, services: Services, session_id: int, peer: str, local: str, *, admin: bool, descriptor: int = -1) -> None:
        self.services = services
        self.engine = services.engine
        self.id = session_id
        self.peer = peer
        self.local = local
        self.descriptor = descriptor
        self.admin = admin
        self.client: Client | None = None
        self.locked = bool(services.config.requirepass) and not admin  # until it authenticates
        self.run_commands_max = RUN_COMMANDS_FIRST  # see executor.py
        self.silent = 0  # replies that are not sent: so many, or all if negative (CLIENT REPLY)
        self.redirected = not admin and services.cluster.enabled  # the admin socket reads every slot that the shard holds
        self.readonly = False
        self.resp = 2
        self.name = b""
        self.library = {b"lib-name": b"", b"lib-ver": b""}
        self.closing = False
        self.created_ms = self.last_ms = services.engine.clock()
        self.last_command = "NULL"
        self.pins: dict[str, OpenVersion] = {}
        self.queue: Queue | None = None  # since MULTI
        self.watched: dict[bytes, tuple[int, bool]] = {}  # slot, and whether the key was there; see watching.py
        self.spoiled = False

    def authenticated(self) -> None:
        """All commands are allowed from now on."""
        if self.locked:
            self.locked = False
            if self.client is not None:
                self.client.guard(on=False)

    def big(self, key: bytes, slot: int, raw: bytes) -> BigCollection:
        """The big collection whose meta value was read in this turn of the loop.

        Raises:
            FormatError: it is none.
        """
        source = self.engine.version_of(key) or self.engine.live
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

    def end_transaction(self) -> None:
        """Neither queue nor watch."""
        self.queue = None
        self.services.watching.unwatch(self)

    def reset(self) -> None:
        """Back to the state of a new connection."""
        self.unpin()
        self.end_transaction()
        self.readonly = False
        self.resp = 2
        self.name = b""
        self.silent = 0
        self.locked = bool(self.services.config.requirepass) and not self.admin
        if self.locked and self.client is not None:
            self.client.guard(on=True)
