"""A raw RESP client for tests: sends bytes, returns the exact bytes of every reply."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

REPLY_WAIT_S = 60.0  # for what takes a millisecond on an idle machine
_CONTAINERS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}


def encode_command(*words: bytes | str | int) -> bytes:
    """A command as clients send it."""
    raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


class RawClient:
    """One connection, by TCP port or Unix socket path."""

    def __init__(self, address: int | Path) -> None:
        if isinstance(address, int):
            self._socket = socket.create_connection(("127.0.0.1", address), timeout=REPLY_WAIT_S)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(REPLY_WAIT_S)
            self._socket.connect(str(address))
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def reply(self) -> bytes:
        """The bytes of one whole reply; empty if the connection is closed."""
        line = self._stream.readline()
        if not line or line[0] not in b"$=*~>%":
            return line
        size = int(line[1:])
        if size < 0:
            return line
        if line[0] in b"$=":
            return line + self._stream.read(size + 2)
        return line + b"".join(self.reply() for _ in range(size * _CONTAINERS[line[0]]))

    def call(self, *words: bytes | str | int) -> bytes:
        self.send(encode_command(*words))
        return self.reply()

    def at_end(self) -> bool:
        """Whether the server has closed the connection."""
        return self._stream.read(1) == b""
