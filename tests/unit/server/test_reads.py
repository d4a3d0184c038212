"""Pipelines of one reading command: what they are told is what each command is told alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import NodeError
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
KEYS = ["text", "empty", "ends", "small", "ends too", "big", "ranks", "absent"]
ALL_FIELDS = [f"f{number}" for number in range(600)]
COMMANDS = [("GET",), ("get",), ("HGETALL",), ("HGET", "name"), ("HMGET", "age", "none"), ("HMGET", *ALL_FIELDS), ("HLEN",)]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with shard_core(tmp_path_factory.mktemp("shard")) as one:
        for words in FILL:
            [reply] = asyncio.run(one.replies([encode_command(*words)]))
            assert not reply.startswith(b"-"), reply
        yield one


def told(core: Core, chunks: list[bytes]) -> tuple[list[bytes], dict[str, int]]:
    engine = core.services.engine
    before = engine.reads, engine.missing, calls(core)
    replies = asyncio.run(core.replies(chunks))
    counts = {"reads": engine.reads - before[0], "missing": engine.missing - before[1], "calls": calls(core) - before[2]}
    return replies, counts


def calls(core: Core) -> int:
    return sum(command.calls for command in core.services.table.values())


@given(keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=20), command=st.sampled_from(COMMANDS), is_hot=st.booleans())
def test_a_pipeline_is_told_what_each_command_is_told_alone(core: Core, keys: list[str], command: tuple[str, ...], is_hot: bool) -> None:
    name, *rest = command
    commands = [encode_command(name, key, *rest) for key in keys]
    alone = told(core, commands)
    if not is_hot:
        core.services.engine.dataset_changed(None)
    assert told(core, [b"".join(commands)]) == alone


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
