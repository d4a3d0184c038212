from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.resp.inline import split_words
from server.resp.parser import ALIKE_LINES_MIN, ALIKE_WORDS_MAX, FAST_BULK_BYTES_MAX, Command, Limits, Parser, _Strict
from tests.support.resp import encode_command

LIMITS = Limits(words_max=50, bulk_bytes_max=10_000, line_bytes_max=200, command_bytes_max=20_000)

WORDS = st.one_of(st.binary(max_size=30), st.sampled_from([b"", b"\r\n", b"$3\r\nabc\r\n", b"*1\r\n", b"x" * 9_000]))
WHOLE = st.lists(WORDS, min_size=1, max_size=6).map(lambda words: encode_command(*words))
PLAIN = st.sampled_from([b"GET", b"a", b"key", b""])


def alike(width: int) -> st.SearchStrategy[bytes]:
    """Pipelines of commands of as many words, most of them long enough to be taken by columns."""
    words = st.one_of(PLAIN, PLAIN, PLAIN, WORDS) if width > 1 else PLAIN
    commands = st.lists(st.lists(words, min_size=width, max_size=width), min_size=5, max_size=ALIKE_LINES_MIN // (2 * width + 1) + 3)
    return commands.map(lambda some: b"".join(encode_command(*words) for words in some))


ALIKE = st.integers(1, ALIKE_WORDS_MAX + 1).flatmap(alike)
TWENTY = encode_command("GET", "k") * 20
ODD = st.sampled_from(
    [
        b"PING\r\n",
        b"\r\n",
        b'ECHO "a b"\n',
        b"ECHO 'x\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n+OK\r\n",
        b"~1\r\n$1\r\na\r\n",
        b"*1\r\n=5\r\ntxt:a\r\n",
        b"*2\r\n$1\r\naXX$1\r\nbYY",
        b"*1\r\n$1\r\naXX+x\r\n",
        b"*01\r\n",
        b"*1\r\n$01\r\na\r\n",
        b"*51\r\n",
        b"*1\r\n$10001\r\n",
        b"*4000000000\r\n",
        b"x" * 300 + b"\r\n",
        b"\x00\n",
        b"*1\rX$1\rXa\r\n",
    ]
)
STREAMS = st.lists(st.one_of(WHOLE, WHOLE, WHOLE, ALIKE, ODD, st.binary(max_size=12)), max_size=6).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=8)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[low:high] for low, high in pairwise(places)]


def strictly(stream: bytes) -> tuple[list[Command], str | None]:
    strict = _Strict(LIMITS)
    return strict.drain(stream), strict.error


def torn(stream: bytes, cuts: list[int]) -> tuple[list[Command], str | None]:
    parser = Parser(LIMITS)
    commands = [command for piece in pieces(stream, cuts) for command in parser.feed(piece)]
    return commands, parser.error


@given(stream=STREAMS, cuts=CUTS)
@example(stream=b"*2\r\n$1\r\na\r\n$1\r\nb\r\n" * 2, cuts=list(range(40)))
@example(stream=TWENTY + encode_command("GET", "k"), cuts=[len(TWENTY) + 2])
@example(stream=encode_command("a") * 19 + encode_command("b", "c"), cuts=[len(encode_command("a") * 19 + encode_command("b", "c")) - 7])
@example(stream=TWENTY + b"*2\r\n$3\r\nGET\r\n$2\r\nk\r\n", cuts=[])
@example(stream=TWENTY + encode_command("GET", b"k" * (FAST_BULK_BYTES_MAX + 1)), cuts=[])
@example(stream=b"*1\r\n$4\r\nPING\r\n\r\n\r\nPING\r\n", cuts=[15, 16, 17])
def test_fast_and_strict_agree_however_the_stream_is_torn(stream: bytes, cuts: list[int]) -> None:
    assert torn(stream, cuts) == strictly(stream)


@given(commands=st.lists(st.lists(WORDS, min_size=1, max_size=5), max_size=5), cuts=CUTS)
def test_commands_come_back_as_they_were_sent(commands: list[list[bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_command(*words) for words in commands)
    if max((len(encode_command(*words)) for words in commands), default=0) < LIMITS.command_bytes_max:
        assert torn(stream, cuts) == (commands, None)


@given(
    stream=st.one_of(ALIKE, st.lists(st.one_of(ALIKE, WHOLE, ODD), max_size=3).map(b"".join)),
    cuts=st.lists(st.integers(0, 400), max_size=1),
)
def test_commands_alike_are_those_of_the_strict_way(stream: bytes, cuts: list[int]) -> None:
    assert torn(stream, cuts) == strictly(stream)


@given(st.binary(max_size=400), CUTS)
def test_no_bytes_make_it_raise(stream: bytes, cuts: list[int]) -> None:
    torn(stream, cuts)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*51\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$10001\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b'A "b\r\n', "unbalanced quotes in request"),
        (b"x" * 201, "too big inline request"),
        (b"*" + b"1" * 201, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 201, "too big bulk count string"),
        (b"*3\r\n" + b"$9000\r\n" + b"x" * 9000 + b"\r\n" + b"$9000\r\n" + b"x" * 9000 + b"\r\n$9000\r\n", "too big request"),
    ],
)
def test_broken_streams_are_named_as_redis_does(stream: bytes, error: str) -> None:
    parser = Parser(LIMITS)
    assert parser.feed(b"*1\r\n$4\r\nPING\r\n" + stream) == [[b"PING"]]
    assert parser.error == error
    assert parser.feed(b"PING\r\n") == []


def test_only_what_the_fast_way_does_not_take_goes_the_strict_way() -> None:
    long = encode_command("GET", b"k" * (FAST_BULK_BYTES_MAX + 1))
    parser = Parser()
    with patch.object(_Strict, "drain", autospec=True, side_effect=_Strict.drain) as drained:
        assert len(parser.feed(TWENTY + long)) == 21
    [call] = drained.call_args_list
    assert call.args[1] == long


def test_a_bulk_that_comes_in_small_pieces_costs_no_rescans() -> None:
    parser = Parser(Limits())
    stream = encode_command("SET", "key", b"x\r\n" * 100_000)
    received = [command for start in range(0, len(stream), 1_000) for command in parser.feed(stream[start : start + 1_000])]
    assert received == [[b"SET", b"key", b"x\r\n" * 100_000]]
    assert parser.pending_bytes == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"  a  b ", [b"a", b"b"]),
        (rb'"a\x41\n\q\"" b', [b'aA\nq"', b"b"]),
        (rb"'a\'b\n'", [rb"a'b\n"]),
        (b'a"b c"', [b"ab c"]),
        (b'"a"b', None),
        (b'"a', None),
        (b"'a", None),
        (b'"a\\', None),
        (b'""', [b""]),
        (b"a\x00b", [b"a"]),
        (b"a\x0bb", [b"a\x0bb"]),
    ],
)
def test_inline_quoting(line: bytes, words: list[bytes] | None) -> None:
    assert split_words(line) == words
