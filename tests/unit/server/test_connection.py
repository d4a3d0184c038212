"""A connection and the end of a turn: what leaves when, in which order. With sockets, tests/integration/test_shard_network.py looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.executor import Executor
from server.latency import RUNS_PER_SAMPLE
from server.net.connection import Connection, Connections
from server.net.doorkeeper import door_table
from server.net.watch import Watch
from tests.support.core import Core, shard_core
from tests.support.resp import encode_command

GET, SET = encode_command("GET", "key"), encode_command("SET", "key", "value")
ABSENT, VALUE, OK = b"$-1\r\n", b"$5\r\nvalue\r\n", b"+OK\r\n"


class Sent(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Turns(list[Callable[[], None]]):
    """What is still to be run, turn by turn."""

    def end(self) -> None:
        """Run what was asked for in this turn."""
        now = self[:]
        self.clear()
        for work in now:
            work()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def core(tmp_path: Path, turns: Turns) -> Iterator[Core]:
    with shard_core(tmp_path / "shard", turns.append) as one:
        yield one


@pytest.fixture
def connect(core: Core) -> Callable[[], tuple[Connection, Sent]]:
    """Makes a client's connection."""
    services = core.services
    connections = Connections(Watch(services))
    executor, doorkeeper = Executor(services.table, services), Executor(door_table(services.table), services)

    def made() -> tuple[Connection, Sent]:
        connection, sent = Connection(services, executor, doorkeeper, connections, len(services.sessions) + 1, admin=False), Sent()
        connection.connection_made(sent)
        return connection, sent

    return made


Connect = Callable[[], tuple[Connection, Sent]]


def test_replies_of_a_turn_leave_at_its_end(connect: Connect, turns: Turns) -> None:
    clients = [connect() for _ in range(3)]
    for connection, _ in clients:
        connection.data_received(GET)
    assert [sent.written for _, sent in clients] == [[], [], []]
    turns.end()
    assert [sent.written for _, sent in clients] == [[ABSENT]] * 3


def test_one_batch_for_the_writes_of_a_turn(core: Core, connect: Connect, turns: Turns) -> None:
    clients = [connect() for _ in range(3)]
    for request in (GET, SET, GET):
        for connection, _ in clients:
            connection.data_received(request)
        turns.end()
    assert [sent.written for _, sent in clients] == [[ABSENT, OK, VALUE]] * 3
    assert core.services.engine.live.commits == 1


def test_what_comes_before_the_end_of_the_turn_waits_for_its_place(connect: Connect, turns: Turns) -> None:
    connection, sent = connect()
    for request in (GET, SET, GET):
        connection.data_received(request)
    assert sent.written == []
    while turns:
        turns.end()
    assert b"".join(sent.written) == ABSENT + OK + VALUE


@pytest.mark.parametrize("request_", [GET, SET])
def test_a_protocol_error_comes_behind_the_reply_that_waits(connect: Connect, turns: Turns, request_: bytes) -> None:
    connection, sent = connect()
    connection.data_received(request_)
    connection.data_received(b"*1\r\n+x\r\n")
    while turns:
        turns.end()
    reply, refused = sent.written
    assert reply == (ABSENT if request_ == GET else OK)
    assert refused.startswith(b"-ERR Protocol error")
    assert sent.closed


@pytest.mark.parametrize("request_", [GET, SET])
def test_who_is_gone_before_the_end_of_the_turn_is_sent_nothing(connect: Connect, turns: Turns, request_: bytes) -> None:
    connection, sent = connect()
    connection.data_received(request_)
    sent.close()
    connection.connection_lost(None)
    turns.end()
    assert sent.written == []


def test_samples_and_slow_commands_take_the_same_way(core: Core, connect: Connect, turns: Turns) -> None:
    core.services.config.slow_ns = 0
    connection, sent = connect()
    for _ in range(RUNS_PER_SAMPLE):
        connection.data_received(GET)
        assert sent.written == []
        turns.end()
        assert sent.written == [ABSENT]
        sent.written.clear()
    assert sum(core.services.latencies.counts_of("get")) == 1
    assert len(core.services.slowlog) == RUNS_PER_SAMPLE


@pytest.mark.parametrize("asked", [GET, SET, GET + SET])
def test_a_sample_lasts_until_its_replies_leave(core: Core, connect: Connect, turns: Turns, asked: bytes) -> None:
    def timed() -> int:
        return sum(sum(core.services.latencies.counts_of(name)) for name in ("get", "set"))

    connection, _ = connect()
    for _ in range(RUNS_PER_SAMPLE):
        connection.data_received(asked)
        assert timed() == 0
        turns.end()
    assert timed() == 1
