"""The scenario as users of valkey-glide say it, plain and cluster, in RESP2 and RESP3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from glide import (
    AdvancedGlideClientConfiguration,
    AdvancedGlideClusterClientConfiguration,
    Batch,
    ClusterBatch,
    ClusterScanCursor,
    ConditionalChange,
    ExpirySet,
    ExpiryType,
    GlideClient,
    GlideClientConfiguration,
    GlideClusterClient,
    GlideClusterClientConfiguration,
    GlideError,
    NodeAddress,
    ProtocolVersion,
    RangeByIndex,
    RangeByScore,
    ScoreBoundary,
)

from tests.clients.scenario import Verb

Client = Any
"""A client or a batch: they have the same methods, but a batch's are not awaited."""

REQUEST_WAIT_MS = CONNECT_WAIT_MS = 60_000  # its defaults of 250 ms and 2 s are for an idle machine

_VERBS: Mapping[str, Callable[..., Any]] = {
    "setnx": lambda c, key, value: c.set(key, value, conditional_set=ConditionalChange.ONLY_IF_DOES_NOT_EXIST),
    "set_for": lambda c, key, value, seconds: c.set(key, value, expiry=ExpirySet(ExpiryType.SEC, seconds)),
    "set_bytes": lambda c, key, value: c.set(key, bytes.fromhex(value)),
    "get_bytes": lambda c, key: c.get(key),
    "incrbyfloat": lambda c, key, by: c.incrbyfloat(key, by),
    "del": lambda c, keys: c.delete(keys),
    "zrange": lambda c, key, first, last: c.zrange(key, RangeByIndex(first, last)),
    "zrevrange": lambda c, key, first, last: c.zrange(key, RangeByIndex(first, last), True),
    "zrangebyscore": lambda c, key, low, high: c.zrange(key, RangeByScore(ScoreBoundary(low), ScoreBoundary(high))),
    "zrange_scores": lambda c, key, first, last: c.zrange_withscores(key, RangeByIndex(first, last)),
    "zcount": lambda c, key, low, high: c.zcount(key, ScoreBoundary(low), ScoreBoundary(high)),
}


def run(port: int, protocol: int, verbs: Sequence[Verb], *, cluster: bool) -> list[Any]:
    """Do it; what came of each verb."""
    return asyncio.run(_run(port, protocol, verbs, cluster=cluster))


async def _run(port: int, protocol: int, verbs: Sequence[Verb], *, cluster: bool) -> list[Any]:
    common: dict[str, Any] = {
        "addresses": [NodeAddress("127.0.0.1", port)],
        "protocol": ProtocolVersion.RESP3 if protocol == 3 else ProtocolVersion.RESP2,
        "request_timeout": REQUEST_WAIT_MS,
    }
    client: Client
    if cluster:
        of_cluster = AdvancedGlideClusterClientConfiguration(CONNECT_WAIT_MS)
        client = await GlideClusterClient.create(GlideClusterClientConfiguration(**common, advanced_config=of_cluster))
    else:
        plain = AdvancedGlideClientConfiguration(CONNECT_WAIT_MS)
        client = await GlideClient.create(GlideClientConfiguration(**common, advanced_config=plain))
    try:
        return [await _do(client, verb, cluster=cluster) for verb in verbs]
    finally:
        await client.close()


async def _do(client: Client, verb: Verb, *, cluster: bool) -> Any:
    name, *arguments = verb
    try:
        match name:
            case "pipeline" | "transaction":
                batch = _batch(arguments[0], atomic=name == "transaction", cluster=cluster)
                given = await client.exec(batch, raise_on_error=True)
                return [_plain(one[0], value) for one, value in zip(arguments[0], given, strict=True)]
            case "watched":
                key, value = arguments
                await client.watch([key])
                await client.set(key, value)
                return await client.exec(_batch([["get", key]], atomic=True, cluster=cluster), raise_on_error=True)
            case "scan":
                return [key.decode() async for key in _scan(client, arguments[0], cluster=cluster)]
            case "hscan" | "zscan":
                return _pairs(name, [one async for one in _scan_elements(getattr(client, name), arguments[0])])
            case _:
                return _plain(name, await _call(client, verb))
    except GlideError as failed:
        return {"error": _with_code(str(failed))}


def _call(client: Client, verb: Verb) -> Any:
    name, *arguments = verb
    say = _VERBS.get(name)
    return say(client, *arguments) if say else getattr(client, name)(*arguments)


def _batch(verbs: Sequence[Verb], *, atomic: bool, cluster: bool) -> Batch | ClusterBatch:
    batch = ClusterBatch(is_atomic=atomic) if cluster else Batch(is_atomic=atomic)
    for one in verbs:
        _call(batch, one)
    return batch


async def _scan(client: Client, pattern: str, *, cluster: bool) -> AsyncIterator[bytes]:
    if cluster:
        place = ClusterScanCursor()  # type: ignore[no-untyped-call]  # it has no types
        while not place.is_finished():
            place, keys = await client.scan(place, match=pattern, count=50)
            for key in keys:
                yield key
        return
    cursor = b"0"
    while True:
        cursor, keys = await client.scan(cursor, match=pattern, count=50)
        for key in keys:
            yield key
        if cursor == b"0":
            return


async def _scan_elements(page: Callable[..., Any], key: str) -> AsyncIterator[bytes]:
    cursor = b"0"
    while True:
        cursor, parts = await page(key, cursor, count=10)
        for part in parts:
            yield part
        if cursor == b"0":
            return


def _with_code(told: str) -> str:
    """The error as Redis words it; glide writes `CODE: text`, or a sentence of its own before a kind of its own."""
    return told.rpartition(" - ")[2].replace("PermissionDenied: ", "NOPERM ", 1).replace(": ", " ", 1)


def _pairs(name: str, flat: list[bytes]) -> dict[str, Any]:
    return {field.decode(): float(value) if name == "zscan" else value.decode() for field, value in zip(flat[::2], flat[1::2], strict=True)}


def _plain(name: str, given: Any) -> Any:
    match given:
        case None | "OK" if name == "setnx":
            return int(given == "OK")
        case bytes():
            return given.hex() if name == "get_bytes" else given.decode()
        case list():
            return [_plain(name, one) for one in given]
        case dict():
            pairs = [(_plain(name, field), _plain(name, one)) for field, one in given.items()]
            return dict(pairs) if name == "hgetall" else [list(pair) for pair in pairs]
    return given
