from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.format.errors import NodeError
from server.net.turn import Turn
from server.storage.live import LiveStore
from server.storage.rocks import BlockCache, Database


class Client:
    """Remembers how it was released."""

    def __init__(self) -> None:
        self.released: list[NodeError | None] = []

    def release(self, failed: NodeError | None) -> None:
        self.released.append(failed)

    def answer(self) -> None:
        self.released.append(None)


def opened(path: Path) -> Database:
    return Database.open_live(path / "live", BlockCache(1 << 20), 1 << 20)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = opened(tmp_path)
    yield one
    one.close()


@pytest.fixture
def closed(tmp_path: Path) -> Database:
    """Whatever is written there is lost."""
    one = opened(tmp_path)
    one.close()
    return one


@pytest.fixture
def later() -> list[Callable[[], None]]:
    """What runs at the end of the turn."""
    return []


def test_the_writes_of_a_turn_are_one_batch_and_nobody_is_answered_before(database: Database, later: list[Callable[[], None]]) -> None:
    live = LiveStore(database)
    turn = Turn(live, later.append)
    clients = [Client() for _ in range(3)]
    for number, client in enumerate(clients):
        live.put(b"key%d" % number, b"value")
        turn.hold(client)
    assert len(later) == 1
    assert [client.released for client in clients] == [[], [], []]
    later.pop()()
    assert [client.released for client in clients] == [[None]] * 3
    assert live.commits == 1
    assert database.get(b"key2") == b"value"
    turn.hold(clients[0])
    assert len(later) == 1, "the next turn has an end of its own"


def test_a_batch_that_is_lost_is_told_to_all(closed: Database, later: list[Callable[[], None]]) -> None:
    live = LiveStore(closed)
    turn = Turn(live, later.append)
    clients = [Client() for _ in range(2)]
    for client in clients:
        live.put(b"key", b"value")
        turn.hold(client)
    later.pop()()
    assert all(isinstance(client.released[0], NodeError) for client in clients)


def test_a_batch_that_somebody_else_lost_is_told_too(closed: Database, later: list[Callable[[], None]]) -> None:
    live = LiveStore(closed)
    turn = Turn(live, later.append)
    client = Client()
    live.put(b"key", b"value")
    turn.hold(client)
    with pytest.raises(NodeError):
        live.commit()
    later.pop()()
    assert isinstance(client.released[0], NodeError)


def test_replies_leave_at_the_end_of_the_turn_behind_its_writes(database: Database, later: list[Callable[[], None]]) -> None:
    live = LiveStore(database)
    turn = Turn(live, later.append)
    reads, writes = Client(), Client()
    turn.reply(reads)
    live.put(b"key", b"value")
    turn.hold(writes)
    assert len(later) == 1
    assert reads.released == writes.released == []
    later.pop()()
    assert reads.released == writes.released == [None]
    assert live.commits == 1
    turn.reply(reads)
    assert len(later) == 1, "the next turn has an end of its own"


def test_what_only_read_is_answered_whatever_became_of_the_writes(closed: Database, later: list[Callable[[], None]]) -> None:
    live = LiveStore(closed)
    turn = Turn(live, later.append)
    reads, writes = Client(), Client()
    turn.reply(reads)
    live.put(b"key", b"value")
    turn.hold(writes)
    later.pop()()
    assert reads.released == [None]
    assert isinstance(writes.released[0], NodeError)
