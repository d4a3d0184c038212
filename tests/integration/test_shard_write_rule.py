"""Keys of a dataset are read-only, whatever a client writes with, and through which door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.format.values import encode_hash
from server.commands.registry import Command
from server.commands.table import command_table
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

OK = b"+OK\r\n"
VERSION = "2026-11-22"
REFUSED = b"NOPERM keys under '{p}lane_' belong to dataset 'plane', "
HELD, FREE = "{p}lane_7", "{p}free"


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardProcess]:
    with running_shards(tmp_path_factory.mktemp("w")) as [one]:
        rows = {b"{p}lane_%d" % number: encode_hash([(b"f", b"v")]) for number in range(10)}
        publish_version(one.paths, "plane", VERSION, rows)
        with RawClient(one.admin_socket) as admin:
            assert admin.call("REDKV", "REGISTER", "plane", "{p}lane_") == OK
            assert admin.call("REDKV", "ACTIVATE", "plane", VERSION) == OK
        yield one


@pytest.fixture(params=["port", "admin_socket"])
def client(shard: ShardProcess, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    with RawClient(getattr(shard, request.param)) as one:
        yield one


def writing_commands() -> list[Command]:
    table = command_table()
    return [one for command in table.values() for one in (command, *command.subcommands.values()) if one.writes and one.first_key]


def calls(command: Command) -> list[list[str]]:
    """The command with words enough, and a key of the dataset in the place of each of its keys in turn."""
    words = [*command.name.split("|"), *["1"] * 6][: max(command.least, min(command.most, 5))]
    places = range(command.first_key, len(words)) if command.keys.last < 0 else range(command.first_key, command.keys.last + 1)
    places = places[:: command.keys.step]
    return [[HELD if at == place else FREE if at in places else word for at, word in enumerate(words)] for place in places]


@pytest.mark.parametrize("command", writing_commands(), ids=lambda one: one.name)
def test_every_command_that_writes_is_refused(client: RawClient, command: Command) -> None:
    for words in calls(command):
        assert client.call(*words).startswith(b"-" + REFUSED), words
    assert client.call("HGETALL", HELD) == b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    assert client.call("EXISTS", FREE) == b":0\r\n"


def test_the_commands_that_write_are_among_them() -> None:
    names = {one.name for one in writing_commands()}
    assert {"set", "mset", "msetnx", "del", "unlink", "rename", "renamenx", "expire", "persist", "getdel", "getex", "zadd"} <= names


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_nothing_is_flushed_while_a_version_is_active(client: RawClient, command: str) -> None:
    assert client.call("SET", FREE, "x") == OK
    for words in ((command,), (command, "ASYNC")):
        reply = client.call(*words)
        assert reply.startswith(b"-NOPERM "), reply
        assert b"plane" in reply
    assert client.call("GET", FREE) == b"$1\r\nx\r\n"
    assert client.call("DEL", FREE) == b":1\r\n"


def test_a_transaction_with_such_a_write_does_nothing(client: RawClient) -> None:
    assert client.call("MULTI") == OK
    assert client.call("SET", FREE, "x") == b"+QUEUED\r\n"
    assert client.call("RENAME", FREE, HELD).startswith(b"-" + REFUSED)
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert client.call("EXISTS", FREE) == b":0\r\n"
    assert client.call("EVAL", "return 1", 0).startswith(b"-ERR unknown command 'EVAL'")


def test_a_dataset_registered_meanwhile_aborts_what_was_queued(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [shard], RawClient(shard.port) as client, RawClient(shard.admin_socket) as admin:
        assert client.call("MULTI") == OK
        assert client.call("SET", FREE, "x") == b"+QUEUED\r\n"
        assert client.call("SET", HELD, "x") == b"+QUEUED\r\n"
        assert admin.call("REDKV", "REGISTER", "plane", "{p}lane_") == OK
        assert client.call("EXEC").startswith(b"-EXECABORT Transaction discarded because of: " + REFUSED)
        assert client.call("MGET", FREE, HELD) == b"*2\r\n$-1\r\n$-1\r\n"
        assert admin.call("REDKV", "UNREGISTER", "plane") == OK
        assert client.call("GET", HELD) == b"$-1\r\n"
        assert client.call("FLUSHALL") == OK
