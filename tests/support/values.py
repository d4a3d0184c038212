"""Reading keys from shards as clients do, and giving them as meta values, so that they compare with what was built."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from pipeline.format.slots import key_slot
from pipeline.format.topology import Topology
from pipeline.format.values import HashValue, StringValue, ZsetValue, decode_value, encode_hash, encode_string, encode_zset
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess


def read_all(shards: Sequence[ShardProcess], rows: Mapping[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Every key of `rows`, read from its owner by the command of its type; None where it is absent."""
    topology = Topology.from_json(shards[0].paths.topology.read_bytes(), "topology")
    port_of = {slot: shard.port for shard in topology.shards for one in shard.slots for slot in range(one.first, one.last + 1)}
    with ExitStack() as stack:
        clients = {one.port: stack.enter_context(RawClient(one.port)) for one in shards}
        return {key: _read(clients[port_of[key_slot(key)]], key, value) for key, value in rows.items()}


def refused_all(shards: Sequence[ShardProcess], rows: Mapping[bytes, bytes], word: bytes) -> bool:
    """Whether every key is refused with an error of that first word."""
    topology = Topology.from_json(shards[0].paths.topology.read_bytes(), "topology")
    ports = {one.name: one.port for one in shards}
    with ExitStack() as stack:
        clients = {name: stack.enter_context(RawClient(port)) for name, port in ports.items()}
        owners = {key: topology.owner_of(key_slot(key)) for key in rows}
        replies = [clients[owner.name].call("GET", key) for key, owner in owners.items() if owner is not None and owner.name in clients]
    return bool(replies) and all(reply.startswith(b"-" + word + b" ") for reply in replies)


def _read(client: RawClient, key: bytes, expected: bytes) -> bytes | None:
    match decode_value(expected):
        case StringValue():
            reply = client.call("GET", key)
            assert reply[:1] == b"$", reply
            return None if reply == b"$-1\r\n" else encode_string(_bulks(reply)[0])
        case HashValue():
            parts = _bulks(client.call("HGETALL", key))
            return encode_hash(list(_pairs(parts))) if parts else None
        case ZsetValue():
            parts = _bulks(client.call("ZRANGE", key, 0, -1, "WITHSCORES"))
            return encode_zset([(member, float(score)) for member, score in _pairs(parts)]) if parts else None
        case other:
            raise AssertionError(f"{other!r} has no reader here")


def _pairs(parts: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _bulks(reply: bytes) -> list[bytes]:
    """The strings of a bulk, or of an array of bulks."""
    assert reply[:1] in b"*$", reply
    at = reply.index(b"\r\n") + 2 if reply[:1] == b"*" else 0
    found = []
    while at < len(reply):
        end = reply.index(b"\r\n", at)
        size = int(reply[at + 1 : end])
        found.append(reply[end + 2 : end + 2 + size])
        at = end + 4 + size
    return found


@contextmanager
def reading(shard: ShardProcess, key: str = "{06S}") -> Iterator[None]:
    """A client that reads a key all the time."""
    ended = threading.Event()

    def read() -> None:
        with RawClient(shard.port) as client:
            while not ended.is_set():
                client.call("GET", key)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
