"""Commands that change a key over several turns of the loop, and what comes in between: ingestion, datasets, clients that go, the sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from rocksdict import Options, SstFileWriter

from pipeline.format.keys import ELEMENT_KINDS, KIND_AT, meta_key
from pipeline.format.slots import SLOT_COUNT, SlotRange, key_slot
from pipeline.format.values import encode_string
from server.executor import Executor
from server.resp.parser import Command as Words
from server.session import Session
from server.storage.upserts import Unit
from tests.support.core import NOW_MS, Core, shard_core

MEMBERS = 20_000
KEY = b"user:z"


@pytest.fixture
def core() -> Iterator[Core]:
    with TemporaryDirectory(prefix="c") as folder, shard_core(Path(folder)) as one:
        yield one


class Connection:
    """One client of a core, command by command."""

    def __init__(self, core: Core) -> None:
        self._executor = Executor(core.services.table, core.services)
        self.session = Session(core.services, 1, "", "", admin=False)

    def begun(self, *words: bytes) -> Awaitable[bytes]:
        """The first turn of a command that takes several."""
        run = self._executor.run(self.session, [list(words)], 0)
        assert run.waiting is not None, run.replies
        return run.waiting

    async def end(self, words: Words, begun: Awaitable[bytes]) -> bytes:
        """The other turns."""
        return await self._executor.finish(self.session, words, begun)

    async def call(self, *words: bytes) -> bytes:
        run = self._executor.run(self.session, [list(words)], 0)
        return await self.end(list(words), run.waiting) if run.waiting is not None else run.replies[0]


def zadd(score: int, members: int = MEMBERS) -> Words:
    return [b"ZADD", KEY, *(word for member in range(members) for word in (b"%d" % score, b"m%d" % member))]


def test_rows_that_come_in_are_not_undone_by_a_command_that_began_before(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "user.sst"
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(file))
    writer[meta_key(KEY)] = encode_string(b"row")
    writer.finish()

    async def both() -> None:
        client, words = Connection(core), zadd(2, MEMBERS + 1)
        await client.call(*zadd(1))
        begun = client.begun(*words)
        database, loop, flushed = core.services.engine.live.database, asyncio.get_running_loop(), asyncio.Event()
        flush = database.flush

        def flush_and_tell() -> None:
            flush()
            loop.call_soon_threadsafe(flushed.set)

        monkeypatch.setattr(database, "flush", flush_and_tell)
        unit = Unit("users", "user:", "2026-11-22", "build-1", (SlotRange(first=0, last=SLOT_COUNT - 1),))
        coming = asyncio.ensure_future(core.services.upserts.ingest(unit, [file]))
        await flushed.wait()  # from now on the rows come in within a few turns, unless they wait
        assert await client.end(words, begun) == b":1\r\n"
        assert await coming
        assert await client.call(b"GET", KEY) == b"$3\r\nrow\r\n"

    asyncio.run(both())


def test_a_transaction_whose_client_went_while_it_waited_is_not_run(core: Core) -> None:
    async def gone() -> None:
        client, other = Connection(core), Connection(core)
        with core.services.gate.hold([b"k"]):
            for words in ([b"WATCH", b"w"], [b"MULTI"], [b"SET", b"k", b"2"]):
                await client.call(*words)
            begun = client.begun(b"EXEC")
            await other.call(b"SET", b"w", b"changed")
            client.session.end_transaction()  # as when its connection is lost
        assert (await client.end([b"EXEC"], begun)).startswith(b"-EXECABORT ")
        assert await other.call(b"GET", b"k") == b"$-1\r\n"

    asyncio.run(gone())


def hset(key: bytes, fields: int = MEMBERS) -> Words:
    return [b"HSET", key, *(word for field in range(fields) for word in (b"f%d" % field, b"v%d" % field))]


LARGE = pytest.mark.parametrize(
    ("words", "counted"),
    [(hset(KEY), b"HLEN"), (zadd(1), b"ZCARD"), ([b"HSET", KEY, *(b"f", b"v") * 5, b"large", b"x" * 2_000_000], b"HLEN")],
    ids=["hash", "zset", "a large value"],
)


def elements_of(core: Core) -> int:
    return sum(key[KIND_AT] in ELEMENT_KINDS for key in core.services.engine.live.database.keys_from(b""))


def swept(core: Core) -> None:
    sweep = core.services.upkeep.sweep
    rounds = sweep.rounds + 1
    while sweep.rounds < rounds or sweep.backlog:
        sweep.step()


@LARGE
def test_a_large_collection_is_written_in_turns_and_appears_at_once(core: Core, words: Words, counted: bytes) -> None:
    async def write() -> None:
        client, other = Connection(core), Connection(core)
        await client.call(b"SET", b"beside", b"1")
        begun = client.begun(*words)
        reader = asyncio.ensure_future(other.end([counted, KEY], other.begun(counted, KEY)))
        writing = asyncio.ensure_future(client.end(words, begun))
        turns = 0
        while not writing.done():
            assert await client.call(b"GET", b"beside") == b"$1\r\n1\r\n"
            assert core.services.engine.read(KEY, key_slot(KEY)) is None
            swept(core)
            turns += 1
            await asyncio.sleep(0)
        assert turns > 1
        reply = await writing
        assert reply == await reader == await other.call(counted, KEY)
        swept(core)
        listed = await other.call(b"HGETALL" if counted == b"HLEN" else b"ZRANGE", KEY, *([b"0", b"-1"] if counted == b"ZCARD" else []))
        assert listed.count(b"$") == int(reply[1:]) * (2 if counted == b"HLEN" else 1)

    asyncio.run(write())


@LARGE
def test_a_dataset_that_takes_the_prefix_meanwhile_refuses_what_is_written(core: Core, words: Words, counted: bytes) -> None:
    async def write() -> None:
        client = Connection(core)
        begun = client.begun(*words)
        await core.services.versions.register("users", "user:")
        assert (await client.end(words, begun)).startswith(b"-NOPERM ")
        await core.services.versions.unregister("users")
        assert await client.call(counted, KEY) == b":0\r\n"
        swept(core)
        assert elements_of(core) == 0

    asyncio.run(write())


def test_a_large_collection_within_a_transaction_is_written_with_the_rest(core: Core) -> None:
    async def write() -> None:
        client = Connection(core)
        await client.call(b"MULTI")
        for words in (hset(b"{t}h"), [b"ZADD", b"{t}z", *zadd(1)[2:]], [b"SET", b"{t}s", b"1"]):
            assert await client.call(*words) == b"+QUEUED\r\n"
        assert await client.call(b"EXEC") == b"*3\r\n:%d\r\n:%d\r\n+OK\r\n" % (MEMBERS, MEMBERS)
        swept(core)
        assert elements_of(core) == 3 * MEMBERS

    asyncio.run(write())


@pytest.mark.parametrize(
    ("first", "more", "ttl"), [([b"HSET", KEY, b"a", b"1"], hset(KEY), True), ([b"ZADD", KEY, b"5", b"a"], zadd(1), False)]
)
def test_a_small_collection_that_becomes_large_keeps_what_it_had(core: Core, first: Words, more: Words, ttl: bool) -> None:
    async def write() -> None:
        client = Connection(core)
        await client.call(*first)
        if ttl:
            await client.call(b"PEXPIREAT", KEY, b"%d" % (NOW_MS + 1_000))
        assert await client.call(*more) == b":%d\r\n" % MEMBERS
        assert await client.call(b"PTTL", KEY) == (b":1000\r\n" if ttl else b":-1\r\n")
        assert await client.call(*([b"HGET", KEY, b"a"] if ttl else [b"ZSCORE", KEY, b"a"])) == b"$1\r\n%d\r\n" % (1 if ttl else 5)

    asyncio.run(write())
