"""The scenario as users of redis-py say it, plain and cluster, in RESP2 and RESP3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from redis.cluster import RedisCluster

from tests.clients.scenario import Verb

Client = Any
"""A redis.Redis, a RedisCluster, or a pipeline of either: they have the same methods."""

_VERBS: Mapping[str, Callable[..., Any]] = {
    "set": lambda c, key, value: c.set(key, value),
    "set_for": lambda c, key, value, seconds: c.set(key, value, ex=seconds),
    "set_bytes": lambda c, key, value: c.set(key, bytes.fromhex(value)),
    "get_bytes": lambda c, key: c.get(key).hex(),
    "mget": lambda c, keys: c.mget(keys),
    "exists": lambda c, keys: c.exists(*keys),
    "del": lambda c, keys: c.delete(*keys),
    "hset": lambda c, key, pairs: c.hset(key, mapping=pairs),
    "hdel": lambda c, key, fields: c.hdel(key, *fields),
    "hscan": lambda c, key: dict(c.hscan_iter(key, count=10)),
    "zrem": lambda c, key, members: c.zrem(key, *members),
    "zrange_scores": lambda c, key, first, last: c.zrange(key, first, last, withscores=True),
    "zscan": lambda c, key: dict(c.zscan_iter(key, count=10)),
    "scan": lambda c, pattern: list(c.scan_iter(match=pattern, count=50)),
}
WAIT_S = 60.0  # after its default of 5 s it says a command again, INCR too
_OK = frozenset({"set", "set_for", "set_bytes", "mset"})


def run(port: int, protocol: int, verbs: Sequence[Verb], *, cluster: bool) -> list[Any]:
    """Do it; what came of each verb."""
    kind = RedisCluster if cluster else redis.Redis
    with kind(host="127.0.0.1", port=port, protocol=protocol, socket_timeout=WAIT_S) as client:
        return [_do(client, verb) for verb in verbs]


def _do(client: Client, verb: Verb) -> Any:
    name, *arguments = verb
    try:
        match name:
            case "pipeline" | "transaction":
                with client.pipeline(transaction=name == "transaction") as pipeline:
                    for one in arguments[0]:
                        _call(pipeline, one)
                    return [
                        _plain(one[0], _unflattened(one[0], given)) for one, given in zip(arguments[0], pipeline.execute(), strict=True)
                    ]
            case "watched":
                return _watched(client, *arguments)
            case _:
                return _plain(name, _call(client, verb))
    except redis.exceptions.RedisError as failed:
        code = "NOPERM " if isinstance(failed, redis.exceptions.NoPermissionError) else ""
        return {"error": f"{code}{failed}"}


def _call(client: Client, verb: Verb) -> Any:
    name, *arguments = verb
    say = _VERBS.get(name)
    return say(client, *arguments) if say else getattr(client, name)(*arguments)


def _unflattened(name: str, given: Any) -> Any:
    """In RESP2, redis-py leaves the replies of a cluster's transaction as they came; those of a pipeline it turns into its own types."""
    if name == "hgetall" and isinstance(given, list):
        return dict(zip(given[::2], given[1::2], strict=True))
    if name == "zrange_scores" and given and isinstance(given[0], bytes):
        return [(member, float(score)) for member, score in zip(given[::2], given[1::2], strict=True)]
    return given


def _watched(client: Client, key: str, value: str) -> Any:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch(key)
        client.set(key, value)
        pipeline.multi()
        pipeline.get(key)
        try:
            return pipeline.execute()
        except redis.exceptions.WatchError:
            return None


def _plain(name: str, given: Any) -> Any:
    match given:
        case True if name in _OK:
            return "OK"
        case bytes():
            return given.decode()
        case list() | tuple():
            return [_plain(name, one) for one in given]
        case dict():
            return {_plain(name, field): _plain(name, one) for field, one in given.items()}
    return given
