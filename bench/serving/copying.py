"""What our shard serves, read as a whole, or written to Redis: the bytes of replies become the words of commands, so both hold the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from bench.serving.data import FIELDS, Dataset
from tests.support.resp import RawClient, encode_command

KEYS_PER_TURN = 500  # requests and replies of a turn fit into sockets' buffers and a little memory
COMPARED_EVERY = 997


def copy(dataset: Dataset, source: int, target: int) -> int:
    """Copy all keys of a dataset from one port to another; how many bytes a reply has."""
    ask = dataset.reads_by
    with RawClient(source) as one:
        reply_bytes = len(one.call(ask, dataset.key(0)))
    with socket.create_connection(("127.0.0.1", target)) as writing:
        for keys, replies in _read(dataset, source, reply_bytes):
            parts = [replies[place : place + reply_bytes] for place in range(0, len(replies), reply_bytes)]
            writing.sendall(b"".join([_written(dataset, key, part) for key, part in zip(keys, parts, strict=True)]))
            _exactly(writing, sum(len(b"+OK\r\n" if dataset.type == "string" else b":%d\r\n" % FIELDS) for _ in keys))
    with RawClient(source) as one, RawClient(target) as other:
        for number in range(0, dataset.keys, COMPARED_EVERY):
            key = dataset.key(number)
            assert one.call(ask, key) == other.call(ask, key), f"{key!r} differs"
    return reply_bytes


def warm(dataset: Dataset, port: int, reply_bytes: int) -> None:
    """Read all keys of a dataset, in no random order: each block of its files comes into the block cache, if that is large enough."""
    for _ in _read(dataset, port, reply_bytes):
        pass


def _read(dataset: Dataset, port: int, reply_bytes: int) -> Iterator[tuple[list[bytes], bytes]]:
    """Some keys and their replies, in turns, until all keys are through."""
    with socket.create_connection(("127.0.0.1", port)) as reading:
        for first in range(0, dataset.keys, KEYS_PER_TURN):
            keys = [dataset.key(number) for number in range(first, min(first + KEYS_PER_TURN, dataset.keys))]
            reading.sendall(b"".join([encode_command(dataset.reads_by, key) for key in keys]))
            yield keys, _exactly(reading, reply_bytes * len(keys))


def _written(dataset: Dataset, key: bytes, reply: bytes) -> bytes:
    if dataset.type == "string":
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n%b" % (len(key), key, reply)
    header = b"*%d\r\n" % (2 * FIELDS)
    assert reply.startswith(header), reply[:40]
    return b"*%d\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n%b" % (2 * FIELDS + 2, len(key), key, reply[len(header) :])


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(1 << 20)
        assert chunk, "the server closed the connection"
        received += chunk
    assert len(received) == count, bytes(received[-200:])
    return bytes(received)
