"""Where our replies may differ from Redis' 7.0, each with its reason; everything else must be the same bytes.

A rule is for some commands, and says whether what both said is alike; mostly by a view of a reply that leaves out what may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.oracle.resp import parsed

MS_APART_MAX = 60_000  # between the two servers' clocks when each is asked, on a busy machine; different TTLs here lie farther apart


@dataclass(frozen=True)
class Alike:
    """Replies of Redis and of the shard to one of `commands` are compared by `alike`, because of `reason`."""

    commands: frozenset[bytes]
    alike: Callable[[list[bytes], bytes, bytes], bool]
    reason: str


def _by(view: Callable[[list[bytes], bytes], Any]) -> Callable[[list[bytes], bytes, bytes], bool]:
    return lambda words, redis, shard: view(words, redis) == view(words, shard)


def _as_pairs(_words: list[bytes], raw: bytes) -> Any:
    value = parsed(raw)
    if isinstance(value, list):
        return sorted(zip(value[::2], value[1::2], strict=False)) if raw.startswith(b"*") else value
    return sorted(value.items()) if isinstance(value, dict) else value


def _as_bag(_words: list[bytes], raw: bytes) -> Any:
    value = parsed(raw)
    return sorted(value, key=repr) if isinstance(value, list) else value


def _soon_after(words: list[bytes], redis: bytes, shard: bytes) -> bool:
    """Numbers that differ by what passed between the two commands; -1 and -2 have a meaning of their own."""
    numbers = parsed(redis), parsed(shard)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        return False
    unit = 1 if words[0].lower().startswith(b"p") else 1_000
    return bool(abs(numbers[0] - numbers[1]) * unit <= MS_APART_MAX)


def _later_or_not(words: list[bytes], redis: bytes, shard: bytes) -> bool:
    """Whether a moment was set or not, where that hangs on the millisecond."""
    return bool({b"gt", b"lt"} & {word.lower() for word in words[3:]}) and {redis, shard} == {b":0\r\n", b":1\r\n"}


def _fewer(_words: list[bytes], redis: bytes, shard: bytes) -> bool:
    counts = parsed(redis), parsed(shard)
    return all(isinstance(count, int) for count in counts) and bool(counts[1] <= counts[0])


def _number(_words: list[bytes], raw: bytes) -> Any:
    return raw[:1] if raw.startswith(b":") else raw


def _shape(_words: list[bytes], raw: bytes) -> Any:
    """How much a random choice brought; what can be chosen is checked by what was chosen before and is read elsewhere."""
    value = parsed(raw)
    if isinstance(value, list):
        return len(value)
    return value if value is None or raw.startswith(b"-") else "one"


def _encoding(_words: list[bytes], raw: bytes) -> Any:
    value = parsed(raw)
    if value in (b"int", b"embstr", b"raw"):
        return "string"
    return value if raw.startswith(b"-") or value is None else ("number" if isinstance(value, int) else value)


ALIKE = (
    Alike(
        frozenset({b"hgetall"}),
        _by(_as_pairs),
        "Redis' hash tables have an order that depends on a random seed; ours is by field. Packed hashes are in the same order in both.",
    ),
    Alike(frozenset({b"hkeys", b"hvals"}), _by(_as_bag), "as HGETALL"),
    Alike(frozenset({b"ttl", b"pttl"}), _soon_after, "what is left of a TTL is asked a moment apart"),
    Alike(frozenset({b"expiretime", b"pexpiretime"}), _soon_after, "a relative TTL begins a moment apart"),
    Alike(frozenset({b"expire", b"pexpire"}), _later_or_not, "the same TTL again ends later only if a millisecond went by in between"),
    Alike(frozenset({b"hrandfield", b"zrandmember"}), _by(_shape), "a random choice"),
    Alike(
        frozenset({b"cluster"}), _fewer, "COUNTKEYSINSLOT of Redis counts keys that have expired and are not reclaimed yet, ours does not"
    ),
    Alike(frozenset({b"dbsize"}), _by(_number), "both count expired keys until they reclaim them, each at a moment of its own"),
    Alike(
        frozenset({b"object"}),
        _by(_encoding),
        "an APPENDed or SETRANGEd short string is `raw` in Redis, where the encoding is that of memory; here it follows from the value. "
        "Redis shares small numbers, and counts their references.",
    ),
)

UNCOMPARED = {
    b"info": "another process",
    b"command": "Redis knows more commands; those that both know are compared one by one in tests/integration/test_oracle_*.py",
}


def same(words: list[bytes], redis: bytes, shard: bytes) -> bool:
    """Whether both said the same, as far as the rules above ask for it."""
    if redis == shard:
        return True
    name = words[0].lower()
    if name in UNCOMPARED and not redis.startswith(b"-"):
        return not shard.startswith(b"-")
    return any(name in rule.commands and rule.alike(words, redis, shard) for rule in ALIKE)
