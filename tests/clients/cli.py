"""The scenario as typed into `redis-cli -c`: lines of quoted words in, one line of JSON for each out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.clients.scenario import Verb

Line = list[str | bytes | float]

_WAIT_S = 60.0


def _flat(pairs: Mapping[str, Any]) -> Line:
    return [word for pair in pairs.items() for word in pair]


_VERBS: Mapping[str, Callable[..., Line]] = {
    "set_for": lambda key, value, seconds: ["SET", key, value, "EX", seconds],
    "set_bytes": lambda key, value: ["SET", key, bytes.fromhex(value)],
    "get_bytes": lambda key: ["GET", key],
    "mset": lambda pairs: ["MSET", *_flat(pairs)],
    "hset": lambda key, pairs: ["HSET", key, *_flat(pairs)],
    "hscan": lambda key: ["HSCAN", key, 0, "COUNT", 1000],
    "zadd": lambda key, scores: ["ZADD", key, *(word for member, score in scores.items() for word in (score, member))],
    "zrange_scores": lambda key, first, last: ["ZRANGE", key, first, last, "WITHSCORES"],
    "zscan": lambda key: ["ZSCAN", key, 0, "COUNT", 1000],
}
_NUMBERS = frozenset({"incrbyfloat", "hincrbyfloat"})


def run(ports: Sequence[int], verbs: Sequence[Verb]) -> list[Any]:
    """Do it; what came of each verb. Verbs of one line go into one redis-cli, as far as the next one that has several."""
    given: list[Any] = []
    waiting: list[Verb] = []
    for verb in verbs:
        if verb[0] in {"pipeline", "transaction", "watched", "scan"}:
            given += _together(ports[0], waiting)
            waiting = []
            given.append(_several(ports, verb))
        else:
            waiting.append(verb)
    return given + _together(ports[0], waiting)


def _together(port: int, verbs: Sequence[Verb]) -> list[Any]:
    answers = _answers(port, [_line(verb) for verb in verbs]) if verbs else []
    return [_plain(verb[0], answer) for verb, answer in zip(verbs, answers, strict=True)]


def _several(ports: Sequence[int], verb: Verb) -> Any:
    name, *arguments = verb
    match name:
        case "pipeline":
            return _together(ports[0], arguments[0])
        case "transaction":  # the first line brings it to the shard that has the keys
            lines = [_line(one) for one in arguments[0]]
            *_, given = _answers(ports[0], [["EXISTS", lines[0][1]], ["MULTI"], *lines, ["EXEC"]])
            return [_plain(one[0], answer) for one, answer in zip(arguments[0], given, strict=True)]
        case "watched":
            key, value = arguments
            return _answers(ports[0], [["EXISTS", key], ["WATCH", key], ["SET", key, value], ["MULTI"], ["GET", key], ["EXEC"]])[-1]
        case _:
            return [key for port in ports for key in _output(port, "--scan", "--pattern", arguments[0]).decode().splitlines()]


def _line(verb: Verb) -> Line:
    name, *arguments = verb
    say = _VERBS.get(name)
    if say:
        return say(*arguments)
    return [name, *(word for one in arguments for word in (one if isinstance(one, list) else [one]))]


def _answers(port: int, lines: Sequence[Line]) -> list[Any]:
    typed = b"\n".join(b" ".join(map(_quoted, line)) for line in lines) + b"\n"
    told = _output(port, "-c", "--quoted-json", typed=typed).decode().splitlines()
    answers = [line for line in told if not line.startswith("-> Redirected to slot")]
    assert len(answers) == len(lines), told
    return [{"error": line[len("error:") :].strip('"')} if line.startswith("error:") else json.loads(line) for line in answers]


def _quoted(word: str | bytes | float) -> bytes:
    raw = word if isinstance(word, bytes) else str(word).encode()
    return b'"' + b"".join(b"\\x%02x" % byte for byte in raw) + b'"'


def _output(port: int, *options: str, typed: bytes | None = None) -> bytes:
    command = ["redis-cli", "-p", str(port), *options]
    return subprocess.run(command, input=typed, stdout=subprocess.PIPE, check=True, timeout=_WAIT_S).stdout


def _plain(name: str, given: Any) -> Any:
    match given:
        case {"error": _}:
            return given
        case [str(cursor), list(flat)] if name in {"hscan", "zscan"}:
            assert cursor == "0", cursor
            return {
                _text(field): float(value) if name == "zscan" else _text(value) for field, value in zip(flat[::2], flat[1::2], strict=True)
            }
        case str() if name in _NUMBERS:
            return float(given)
        case str():
            return _bytes(given).hex() if name == "get_bytes" else _text(given)
        case list():
            return [_plain(name, one) for one in given]
        case dict():
            return {_text(field): _plain(name, one) for field, one in given.items()}
    return given


def _bytes(escaped: str) -> bytes:
    return escaped.encode("ascii").decode("unicode_escape").encode("latin-1")  # its escapes are among Python's


def _text(escaped: str) -> str:
    return _bytes(escaped).decode()
