"""RESP replies as Python values and taken apart, for comparing what is alike but not the same."""

from __future__ import annotations

from typing import Any

_PAIRS = ord("%")


def parsed(raw: bytes) -> Any:
    """The value of one whole reply; errors and statuses as bytes with their mark."""
    value, rest = _value(raw)
    assert not rest, raw
    return value


def elements(raw: bytes) -> list[bytes]:
    """The replies within an array, as they came."""
    line, _, rest = raw.partition(b"\r\n")
    found = []
    for _ in range(int(line[1:])):
        _, after = _value(rest)
        found.append(rest[: len(rest) - len(after)])
        rest = after
    return found


def _value(raw: bytes) -> tuple[Any, bytes]:
    line, _, rest = raw.partition(b"\r\n")
    kind, text = line[:1], line[1:]
    match kind:
        case b":":
            return int(text), rest
        case b"$" | b"=":
            size = int(text)
            return (None, rest) if size < 0 else (rest[:size], rest[size + 2 :])
        case b"_":
            return None, rest
        case b"*" | b"~" | b">" | b"%":
            return _container(kind, int(text), rest)
    return line, rest


def _container(kind: bytes, size: int, rest: bytes) -> tuple[Any, bytes]:
    if size < 0:
        return None, rest
    parts = []
    for _ in range(size * (2 if kind[0] == _PAIRS else 1)):
        part, rest = _value(rest)
        parts.append(part)
    if kind[0] == _PAIRS:
        return dict(zip(parts[::2], parts[1::2], strict=True)), rest
    return parts, rest
