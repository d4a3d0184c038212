"""What clients are told, and what is there afterwards, when a command fails half-way, a block can't be read or a batch can't be written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.format.keys import USER_KEY_BYTES_MAX
from pipeline.format.layout import ShardPaths
from pipeline.format.values import encode_string
from server.executor import Executor
from server.session import Session
from tests.support.core import Core, shard_core
from tests.support.resp import RawClient, encode_command
from tests.support.shards import running_shards
from tests.support.versions import publish_version

VERSION = "2026-11-22"
ROWS = 2_000
LONG = b"{t}" + b"k" * USER_KEY_BYTES_MAX


@pytest.fixture
def core() -> Iterator[Core]:
    with TemporaryDirectory(prefix="c") as folder, shard_core(Path(folder)) as one:
        yield one


def lose_database(core: Core) -> None:
    """Nothing can be read or written from now on."""
    database = core.services.engine.live.database
    database.end_background_work()
    database.close()


def run(core: Core, *commands: list[bytes]) -> list[bytes]:
    return asyncio.run(core.replies([b"".join(encode_command(*words) for words in commands)]))


@pytest.mark.parametrize("name", [b"MSET", b"MSETNX"])
def test_several_keys_are_set_all_or_none(core: Core, name: bytes) -> None:
    [refused, found] = run(core, [name, b"{t}a", b"1", LONG, b"2"], [b"GET", b"{t}a"])
    assert refused.startswith(b"-ERR key is longer")
    assert found == b"$-1\r\n"


def test_a_connection_with_pins_flushes_for_everybody(core: Core, tmp_path: Path) -> None:
    services = core.services
    executor = Executor(services.table, services)
    verifier, watcher = (Session(services, number, "", "", admin=number == 1) for number in (1, 2))

    async def flush() -> None:
        await services.versions.register("people", "person:")
        publish_version(ShardPaths(services.settings.data_dir), "people", VERSION, {b"person:1": encode_string(b"x")})
        services.versions.open("people", VERSION)
        verifier.pin("people", VERSION)
        executor.run(watcher, [[b"SET", b"k", b"1"], [b"WATCH", b"k"], [b"MULTI"], [b"GET", b"k"]], 0)
        assert executor.run(verifier, [[b"FLUSHALL"]], 0).replies == [b"+OK\r\n"]
        assert executor.run(watcher, [[b"EXEC"], [b"GET", b"k"]], 0).replies == [b"*-1\r\n", b"$-1\r\n"]
        verifier.unpin()

    asyncio.run(flush())


def test_a_block_that_cannot_be_read_fails_the_commands_that_need_it(tmp_path: Path) -> None:
    values = random.Random(1)
    rows = {b"person:{t}%04d" % number: encode_string(values.randbytes(100)) for number in range(ROWS)}
    with running_shards(tmp_path) as [shard]:
        directory = publish_version(shard.paths, "people", VERSION, rows)
        [table] = directory.glob("*.sst")
        with table.open("r+b") as file:
            file.seek(table.stat().st_size // 2)
            file.write(b"\0" * 64)
        with RawClient(shard.admin_socket) as admin:
            for words in (("REGISTER", "people", "person:"), ("ACTIVATE", "people", VERSION)):
                assert admin.call("REDKV", *words) == b"+OK\r\n"
        with RawClient(shard.port) as client:
            client.send(b"".join(encode_command(b"GET", key) for key in rows))
            replies = [client.reply() for _ in rows]
            assert client.call("PING") == b"+PONG\r\n"
    broken = [reply for reply in replies if reply.startswith(b"-ERR RocksDB")]
    assert 0 < len(broken) < 100
    whole = [b"$100\r\n%b\r\n" % raw[2:] for raw in rows.values()]
    assert all(reply in broken or reply == value for reply, value in zip(replies, whole, strict=True))


def test_what_a_command_of_several_turns_could_not_write_is_not_read(core: Core) -> None:
    services = core.services
    executor = Executor(services.table, services)
    session = Session(services, 1, "", "", admin=False)

    async def fail() -> None:
        executor.run(session, [[b"SET", b"k", b"1"]], 0)
        with services.gate.hold([b"k"]):
            words = [[b"MULTI"], [b"SET", b"k", b"2"], [b"GET", b"k"], [b"EXEC"]]
            run = executor.run(session, words, 0)
            assert run.waiting is not None
        lose_database(core)
        reply = await executor.finish(session, words[-1], run.waiting)
        assert reply.startswith(b"-MISCONF ")
        [found] = executor.run(session, [[b"GET", b"k"]], 0).replies
        assert found.startswith(b"-ERR RocksDB"), "a value that was never written"

    asyncio.run(fail())


def test_commands_that_wait_for_exec_are_still_queued_when_those_before_them_fail(core: Core) -> None:
    lose_database(core)
    replies = run(core, [b"SET", b"a", b"1"], [b"MULTI"], [b"SET", b"b", b"2"])
    assert replies[0].startswith(b"-MISCONF ")
    assert replies[1:] == [b"+OK\r\n", b"+QUEUED\r\n"]
