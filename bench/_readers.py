"""Steady readers in a process of their own, cheap enough to leave the machine to the shards.

Every tick, each connection asks one key, and all replies are read and compared with the bytes that they must have. A rate of 0 is as fast
as it goes. Shards are asked one after the other: they share a machine's cores here, and would interrupt each other's commands, which
those of different nodes do not. Their p99 would then be a matter of luck, beside a load or not.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

CONNECTIONS = 4  # per shard: their requests of one tick meet in its loop, as clients' do
WAIT_S = 30.0

Ask = tuple[bytes, bytes]
"""A request as it is sent, and the reply that must come."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Reads in so many seconds, and how many of them went wrong."""

    reads: int
    wrong: int
    seconds: float


class Readers:
    """A context manager. `asks` are the requests for the shard on each port, of which random ones are sent."""

    def __init__(self, asks: Mapping[int, Sequence[Ask]]) -> None:
        context = get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_read, args=(there, dict(asks)), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def at(self, rate: float) -> Seen:
        """Read at so many a second from now on; what was seen since the last change."""
        self._here.send(rate)
        if not self._here.poll(WAIT_S):
            raise TimeoutError("the readers do not answer: look whether a shard runs")
        seen: Seen = self._here.recv()
        return seen


def _read(control: Connection, asks: dict[int, Sequence[Ask]]) -> None:
    source = random.Random(1)
    shards = {port: [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)] for port in asks}
    for one in (one for connections in shards.values() for one in connections):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rate: float = control.recv()
    control.send(Seen(0, 0, 0.0))
    reads = wrong = 0
    began = due = time.perf_counter()
    while True:
        if control.poll():
            rate = control.recv()
            now = time.perf_counter()
            control.send(Seen(reads, wrong, now - began))
            reads, wrong, began, due = 0, 0, now, now
        for port, connections in shards.items():
            expected = []
            for one in connections:
                request, reply = source.choice(asks[port])
                one.sendall(request)
                expected.append((one, reply))
            for one, reply in expected:
                found = one.recv(len(reply), socket.MSG_WAITALL)
                wrong += found != reply
                if len(found) < len(reply):
                    raise ConnectionError("a shard closed the connection")
        reads += CONNECTIONS * len(shards)
        if rate:
            due = max(due + CONNECTIONS * len(shards) / rate, time.perf_counter() - 1.0)
            time.sleep(max(0.0, due - time.perf_counter()))
