"""Any bytes into the RESP core, torn at any place: no exception, no end without an answer, the same commands and replies however they come.

Streams are valid pipelines, valid ones with some bytes changed, and noise. What broken streams are told, word by word, is compared with
redis-server in tests/integration/test_shard_oracle.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.resp.parser import Command, Limits, Parser
from tests.support.core import Core, shard_core
from tests.support.resp import encode_command

LIMITS = Limits(words_max=40, bulk_bytes_max=2_000, line_bytes_max=120, command_bytes_max=3_000)
ERRORS = re.compile(
    r"invalid multibulk length|invalid bulk length|too big request|too big mbulk count string|too big bulk count string"
    r"|too big inline request|unbalanced quotes in request|expected '\$', got '.'",
    re.DOTALL,
)
REPLY = re.compile(rb"[+\-:$*_,#(=~%>]")

NAMES = st.sampled_from(
    [
        b"GET",
        b"set",
        b"Del",
        b"MGET",
        b"MSET",
        b"INCR",
        b"APPEND",
        b"TYPE",
        b"EXISTS",
        b"STRLEN",
        b"GETRANGE",
        b"SETEX",
        b"ECHO",
        b"PING",
        b"MULTI",
        b"EXEC",
        b"DISCARD",
        b"WATCH",
        b"UNWATCH",
        b"HELLO",
        b"HGETALL",
        b"HMGET",
        b"ZRANGE",
        b"QUIT",
        b"NOSUCH",
        b"SELECT",
    ]
)
ARGUMENTS = st.one_of(
    st.sampled_from([b"{t}a", b"{t}b", b"1", b"-1", b"3", b"", b"\r\n", b"$3\r\nabc\r\n", b"*1\r\n", b"x" * 600, b"EX", b"\xff\x00"]),
    st.binary(max_size=12),
)
COMMANDS = st.builds(lambda name, arguments: encode_command(name, *arguments), NAMES, st.lists(ARGUMENTS, max_size=4))
INLINE = st.builds(
    lambda name, words, end: name + b" " + b" ".join(words) + end,
    NAMES,
    st.lists(st.sampled_from([b"{t}a", b'"q\\x41"', b"'q'", b'"open', b"1", b"'x'y", b"\x00"]), max_size=3),
    st.sampled_from([b"\r\n", b"\n"]),
)
PIECES = st.sampled_from(
    [
        b"*",
        b"$",
        b"*0\r\n",
        b"*-1\r\n",
        b"*3\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$2001\r\n",
        b"*41\r\n",
        b"\r",
        b"\n",
        b"\r\n",
        b"+OK\r\n",
        b"\x00",
        b"$99999999999999999999\r\n",
        b"*01\r\n",
        b"$ 1\r\n",
        b"*1\r\n$1",
        b"x" * 130,
    ]
)
VALID = st.lists(COMMANDS, min_size=1, max_size=5).map(b"".join)


def changed(stream: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Some stretches of a stream replaced."""
    for place, length, piece in changes:
        at = place % (len(stream) + 1)
        stream = stream[:at] + piece + stream[at + length :]
    return stream


CHANGES = st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 3), st.one_of(PIECES, st.binary(max_size=3))), min_size=1, max_size=3)
STREAMS = st.one_of(
    VALID,
    st.builds(changed, VALID, CHANGES),
    st.lists(st.one_of(COMMANDS, INLINE, PIECES), max_size=6).map(b"".join),
    st.binary(max_size=300),
)
CUTS = st.lists(st.integers(0, 1_500), max_size=8)


def torn(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[low:high] for low, high in pairwise(places)]


def parsed(chunks: list[bytes]) -> tuple[list[Command], str | None]:
    parser = Parser(LIMITS)
    commands = []
    fed = taken = 0
    for chunk in chunks:
        fed += len(chunk)
        for command in parser.feed(chunk):
            assert command
            assert all(type(word) is bytes for word in command)
            taken += sum(map(len, command))
            commands.append(command)
        assert taken <= fed, "words out of nothing"
        assert parser.error is not None or parser.pending_bytes <= fed - taken
    if parser.error is not None:
        assert ERRORS.fullmatch(parser.error), parser.error
        assert parser.feed(b"*1\r\n$4\r\nPING\r\n") == []
    return commands, parser.error


@settings(max_examples=60)
@given(stream=STREAMS)
@example(stream=b"*" + b"1" * 121 + b"\r\n")
@example(stream=b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\nPING\r\n")
@example(stream=b'ECHO "a\\x0d\\n"\r\n*1\r\n$4\r\nPINGxx*1\r\n$-1\r\n')
def test_a_stream_torn_at_every_position_gives_the_same_commands(stream: bytes) -> None:
    whole = parsed([stream])
    for cut in range(1, len(stream)):
        assert parsed([stream[:cut], stream[cut:]]) == whole, f"cut at {cut}"
    assert parsed([stream[place : place + 1] for place in range(len(stream))]) == whole


@settings(max_examples=300)
@given(stream=STREAMS, cuts=CUTS)
def test_a_stream_torn_at_some_positions_gives_the_same_commands(stream: bytes, cuts: list[int]) -> None:
    assert parsed(torn(stream, cuts)) == parsed([stream])


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Core]]:
    root = tmp_path_factory.mktemp("cores")
    with shard_core(root / "one") as one, shard_core(root / "other") as other:
        yield one, other


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(stream=STREAMS, cuts=CUTS)
@example(stream=encode_command("MULTI") + encode_command("SET", "a", "1") + b"*1\r\n$x\r\n", cuts=[3, 17, 30])
def test_replies_are_the_same_however_a_stream_is_torn(cores: tuple[Core, Core], stream: bytes, cuts: list[int]) -> None:
    one, other = cores
    for core in cores:
        core.clear()
    told = asyncio.run(one.replies([stream], LIMITS))
    assert told == asyncio.run(other.replies(torn(stream, cuts), LIMITS))
    assert all(REPLY.match(reply) and reply.endswith(b"\r\n") for reply in told)
    assert not any(b"internal error" in reply for reply in told)
    assert list(one.services.engine.live.entries_from(b"")) == list(other.services.engine.live.entries_from(b""))
