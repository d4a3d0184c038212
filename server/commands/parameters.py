"""The parameters of CONFIG: their names in Redis, their kinds, and where their values are. No I/O.

Rules:
- A parameter is listed if this server has what it names. Values of those that can change are in server/config.py; the others are what this
  server is, and setting one to what it is already succeeds, as scripts expect (`save ""`, `appendonly yes`).
- A password is never shown: who may connect knows it, who looks at a screen need not.
- `parse` takes a client's word and gives the value, or raises ValueError with Redis' reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from server.commands.arguments import INT32_MAX, INT64_MAX
from server.commands.arguments import integer as integer_word
from server.config import RuntimeConfig
from server.resp.replies import ReplyError
from server.settings import QUERY_BUFFER_BYTES_MIN, FsyncPolicy, ShardSettings

PASSWORD_SHOWN = "(hidden)"  # noqa: S105 -- what stands in its place
BULK_BYTES_MIN = 1 << 20
MAXCLIENTS_MAX = (1 << 32) - 1
OTHER_CLASSES = "slave 268435456 67108864 60 pubsub 33554432 8388608 60"  # there are no such clients; tools expect three classes

_MEMORY = re.compile(r"(-?[0-9]+)(b|k|kb|m|mb|g|gb)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1_000, "kb": 1 << 10, "m": 10**6, "mb": 1 << 20, "g": 10**9, "gb": 1 << 30}
_CLASSES = frozenset({"normal", "slave", "replica", "pubsub", "master"})
_CLASS_WORDS = 4

Parse = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: how its value is shown, and how a new one is read and put in its place."""

    name: str
    show: Callable[[RuntimeConfig, ShardSettings], str]
    parse: Parse | None = None  # none: it can't be changed, not even to what it is
    put: Callable[[RuntimeConfig, Any], None] = lambda _config, _value: None
    aliases: tuple[str, ...] = ()


def integer(least: int, most: int = INT64_MAX) -> Parse:
    """A whole number."""

    def parse(word: str) -> int:
        try:
            number = integer_word(word.encode())
        except ReplyError as wrong:
            raise ValueError("argument couldn't be parsed into an integer") from wrong
        return _within(number, least, most)

    return parse


def memory(least: int, most: int = INT64_MAX) -> Parse:
    """Bytes, with a unit if one likes: `1k` is 1000, `1kb` is 1024."""

    def parse(word: str) -> int:
        number = memory_bytes(word)
        if number is None or number < 0:
            raise ValueError("argument must be a memory value")
        return _within(number, least, most)

    return parse


def memory_bytes(word: str) -> int | None:
    """What a memory value says; None if it is none."""
    found = _MEMORY.fullmatch(word)
    return int(found[1]) * _UNITS[(found[2] or "").lower()] if found else None


def choice(*names: str) -> Parse:
    """One of some names."""

    def parse(word: str) -> str:
        if word.lower() not in names:
            raise ValueError(f"argument(s) must be one of the following: {', '.join(names)}")
        return word.lower()

    return parse


def yes_or_no(word: str) -> bool:
    """`yes` or `no`."""
    if word.lower() not in ("yes", "no"):
        raise ValueError("argument must be 'yes' or 'no'")
    return word.lower() == "yes"


def output_limits(word: str) -> tuple[int, int, int] | None:
    """The limits of class `normal`; None if other classes alone are named."""
    words = word.split(" ")
    if len(words) % _CLASS_WORDS:
        raise ValueError("Wrong number of arguments in buffer limit configuration.")
    normal = None
    for place in range(0, len(words), _CLASS_WORDS):
        kind, hard, soft, seconds = words[place : place + _CLASS_WORDS]
        if kind.lower() not in _CLASSES or kind.lower() == "master":
            raise ValueError("Invalid client class specified in buffer limit configuration.")
        limits = memory_bytes(hard), memory_bytes(soft), int(seconds) if seconds.isdecimal() and seconds.isascii() else None
        if None in limits or min(one or 0 for one in limits) < 0:
            raise ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
        if kind.lower() == "normal":
            normal = (limits[0] or 0, limits[1] or 0, limits[2] or 0)
    return normal


def _within(number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise ValueError(f"argument must be between {least} and {most} inclusive")
    return number


def _changeable(name: str, attribute: str, parse: Parse, *aliases: str) -> Parameter:
    def show(config: RuntimeConfig, _settings: ShardSettings) -> str:
        value = getattr(config, attribute)
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)

    return Parameter(name, show, parse, lambda config, value: setattr(config, attribute, value), aliases)


def _constant(name: str, value: str) -> Parameter:
    def parse(word: str) -> str:
        if word.lower() != value:
            raise ValueError(f"this server has it at '{value}' always")
        return value

    return Parameter(name, lambda _config, _settings: value, parse)


def _fixed(name: str, show: Callable[[ShardSettings], str]) -> Parameter:
    return Parameter(name, lambda _config, settings: show(settings))


def _put_limits(config: RuntimeConfig, limits: tuple[int, int, int] | None) -> None:
    if limits is not None:
        config.output_hard_bytes, config.output_soft_bytes, config.output_soft_s = limits


PARAMETERS = (
    Parameter(
        "requirepass",
        lambda config, _settings: PASSWORD_SHOWN if config.requirepass else "",
        lambda word: word.encode(errors="surrogateescape"),
        lambda config, value: setattr(config, "requirepass", value),
    ),
    _changeable("maxclients", "maxclients", integer(1, MAXCLIENTS_MAX)),
    _changeable("timeout", "timeout_s", integer(0, INT32_MAX)),
    _changeable("tcp-keepalive", "tcp_keepalive_s", integer(0, INT32_MAX)),
    _changeable("proto-max-bulk-len", "proto_max_bulk_len", memory(BULK_BYTES_MIN)),
    _changeable("client-query-buffer-limit", "client_query_buffer_limit", memory(QUERY_BUFFER_BYTES_MIN)),
    Parameter(
        "client-output-buffer-limit",
        lambda config, _settings: f"normal {config.output_hard_bytes} {config.output_soft_bytes} {config.output_soft_s} {OTHER_CLASSES}",
        output_limits,
        _put_limits,
    ),
    _changeable("hash-max-listpack-entries", "hash_max_listpack_entries", integer(0), "hash-max-ziplist-entries"),
    _changeable("hash-max-listpack-value", "hash_max_listpack_value", memory(0), "hash-max-ziplist-value"),
    _changeable("zset-max-listpack-entries", "zset_max_listpack_entries", integer(0), "zset-max-ziplist-entries"),
    _changeable("zset-max-listpack-value", "zset_max_listpack_value", memory(0), "zset-max-ziplist-value"),
    _changeable("appendfsync", "appendfsync", choice(*sorted(get_args(FsyncPolicy), key=("everysec", "always", "no").index))),
    _changeable("slowlog-log-slower-than", "slowlog_log_slower_than_us", integer(-1)),
    _changeable("slowlog-max-len", "slowlog_max_len", integer(0)),
    _changeable("latency-tracking", "latency_tracking", yes_or_no),
    _constant("appendonly", "yes"),
    _constant("save", ""),
    _constant("maxmemory", "0"),
    _constant("maxmemory-policy", "noeviction"),
    _constant("latency-monitor-threshold", "0"),
    _fixed("databases", lambda _settings: "1"),
    _fixed("cluster-enabled", lambda settings: "yes" if settings.cluster_enabled else "no"),
    _fixed("bind", lambda settings: settings.host),
    _fixed("port", lambda settings: str(settings.port)),
    _fixed("unixsocket", lambda settings: str(settings.admin_socket)),
    _fixed("dir", lambda settings: str(settings.data_dir)),
    _fixed("protected-mode", lambda _settings: "yes"),
)

BY_NAME = {name: one for one in PARAMETERS for name in (one.name, *one.aliases)}
