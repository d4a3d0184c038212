"""Pipelines of one reading command: what they are told is what each command is told alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import NodeError
from pipeline.format.slots import key_slot
from pipeline.format.values import encode_compressed
from server.executor import Executor
from server.reads import REPLY_BYTES_PER_RUN_MAX
from server.session import Session
from server.storage.hotcache import HotCache
from server.storage.live import LiveStore
from tests.support.core import NOW_MS, Core, shard_core
from tests.support.resp import encode_command

FILL = [
    ("SET", "text", "some text"),
    ("SET", "empty", ""),
    ("SET", "ends", "later", "PXAT", NOW_MS + 1),
    ("HSET", "small", "name", "Ada", "age", 36),
    ("HSET", "ends too", "name", "Bob"),
    ("PEXPIREAT", "ends too", NOW_MS + 1),
    ("HSET", "big", *(word for number in range(600) for word in (f"f{number}", number))),
    ("ZADD", "ranks", 1, "a"),
]
KEYS = ["text", "empty", "ends", "packed", "small", "ends too", "big", "ranks", "absent"]
ALL_FIELDS = [f"f{number}" for number in range(600)]
COMMANDS = [("GET",), ("get",), ("HGETALL",), ("HGET", "name"), ("HMGET", "age", "none"), ("HMGET", *ALL_FIELDS), ("HLEN",)]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with shard_core(tmp_path_factory.mktemp("shard")) as one:
        for words in FILL:
            [reply] = asyncio.run(one.replies([encode_command(*words)]))
            assert not reply.startswith(b"-"), reply
        packed = encode_compressed(b"long " * 1_000, None)
        assert packed
        one.services.engine.write(b"packed", key_slot(b"packed"), packed)
        one.services.engine.live.commit()
        yield one


@pytest.fixture
def dispatched(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the commands that go the dispatcher's way."""
    names = []
    call = Executor._call

    def noted(self: Executor, session: Session, words: list[bytes]) -> bytes | Awaitable[bytes]:
        names.append(words[0])
        return call(self, session, words)

    monkeypatch.setattr(Executor, "_call", noted)
    return names


def told(core: Core, chunks: list[bytes]) -> tuple[list[bytes], dict[str, int]]:
    engine = core.services.engine
    before = engine.reads, engine.missing, calls(core)
    replies = asyncio.run(core.replies(chunks))
    counts = {"reads": engine.reads - before[0], "missing": engine.missing - before[1], "calls": calls(core) - before[2]}
    return replies, counts


def calls(core: Core) -> int:
    return sum(command.calls for command in core.services.table.values())


@given(
    keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=20),
    command=st.sampled_from(COMMANDS),
    hello=st.sampled_from([2, 3]),
    is_hot=st.booleans(),
)
def test_a_pipeline_is_told_what_each_command_is_told_alone(
    core: Core, keys: list[str], command: tuple[str, ...], hello: int, is_hot: bool
) -> None:
    name, *rest = command
    first = encode_command("HELLO", hello)
    commands = [encode_command(name, key, *rest) for key in keys]
    alone = told(core, [first, *commands])
    if not is_hot:
        core.services.engine.dataset_changed(None)
    assert told(core, [first, b"".join(commands)]) == alone


@pytest.mark.parametrize("is_hot", [False, True])
def test_it_goes_past_the_dispatcher(core: Core, dispatched: list[bytes], is_hot: bool) -> None:
    for command in (("GET", "text"), ("HGETALL", "small"), ("HGET", "small", "name"), ("HMGET", "small", "name", "none")):
        if not is_hot:
            core.services.engine.dataset_changed(None)
        replies, counts = told(core, [encode_command(*command) * 16])
        assert len(set(replies)) == 1
        assert counts == {"reads": 16, "missing": 0, "calls": 16}
    assert dispatched == []


def test_what_declines_goes_to_the_dispatcher_and_is_fetched_once(core: Core, dispatched: list[bytes]) -> None:
    engine = core.services.engine
    keys = ["text", "ranks", "absent", "ends", *(f"absent {number}" for number in range(12))]
    engine.dataset_changed(None)
    with patch.object(HotCache, "admits", return_value=False):
        before = engine.fetches
        replies, counts = told(core, [b"".join(encode_command("GET", key) for key in keys)])
    assert replies[1].startswith(b"-WRONGTYPE")
    assert dispatched == [b"GET"] * 15
    assert counts == {"reads": 16, "missing": 13, "calls": 16}
    assert engine.fetches - before == len(keys)


def test_slots_of_others_are_the_dispatchers(core: Core, dispatched: list[bytes]) -> None:
    owned = core.services.cluster.owned
    slot = key_slot(b"small")
    owned[slot] = 0
    try:
        replies, _ = told(core, [encode_command("HGETALL", "small") * 4])
    finally:
        owned[slot] = 1
    assert dispatched == [b"HGETALL"] * 4
    assert not any(b"Ada" in reply for reply in replies)


def test_keys_that_another_command_changes_are_waited_for(core: Core, dispatched: list[bytes]) -> None:
    async def while_held() -> tuple[list[bytes], bool]:
        async with asyncio.timeout(30):
            with core.services.gate.hold([b"text"]):
                asked = asyncio.create_task(core.replies([encode_command("GET", "text") * 4]))
                await asyncio.sleep(0)
                waits = not asked.done()
            return await asked, waits

    replies, waited = asyncio.run(while_held())
    assert waited
    assert replies == [b"$9\r\nsome text\r\n"] * 4
    assert dispatched


def test_a_run_ends_at_its_bytes(core: Core, dispatched: list[bytes]) -> None:
    value = "x" * (REPLY_BYTES_PER_RUN_MAX // 2)
    asyncio.run(core.replies([encode_command("SET", "large", value)]))
    dispatched.clear()
    session = Session(core.services, 1, "127.0.0.1:1", "127.0.0.1:2", admin=False)
    run = Executor(core.services.table, core.services).run(session, [[b"GET", b"large"]] * 8, 0)
    assert (len(run.replies), run.next_place) == (2, 2)
    assert dispatched == []


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.sampled_from(KEYS)), min_size=2, max_size=12))
def test_so_is_one_of_several_commands(core: Core, asked: list[tuple[tuple[str, ...], str]]) -> None:
    commands = [encode_command(command[0], key, *command[1:]) for command, key in asked]
    assert told(core, [b"".join(commands)]) == told(core, commands)


def test_words_that_do_not_fit_fail_alone(core: Core) -> None:
    commands = [encode_command("GET", "text"), encode_command("GET"), encode_command("GET", "text", "more"), encode_command("GET", "text")]
    replies, counts = told(core, [b"".join(commands)])
    assert [reply[:1] for reply in replies] == [b"$", b"-", b"-", b"$"]
    assert counts["calls"] == 2


def test_commands_within_a_transaction_wait_for_its_end(core: Core) -> None:
    commands = [encode_command("MULTI"), *[encode_command("GET", "text")] * 3, encode_command("EXEC")]
    replies, _ = told(core, [*commands[:1], b"".join(commands[1:])])
    assert replies[:4] == [b"+OK\r\n"] + [b"+QUEUED\r\n"] * 3
    assert replies[4].count(b"some text") == 3


def test_what_can_not_be_read_is_an_error_of_each_command_that_asks(core: Core) -> None:
    core.services.engine.dataset_changed(None)
    commands = [encode_command("GET", key) for key in ("text", "empty", "absent")]
    broken = NodeError("the block is damaged", path="live")
    with patch.object(LiveStore, "get_many", side_effect=broken), patch.object(LiveStore, "get", side_effect=broken):
        replies, _ = told(core, [b"".join(commands)])
    assert all(b"the block is damaged" in reply for reply in replies), replies
    assert len(replies) == len(commands)
