"""Loopback ports for tests: free ones, and ones that somebody else holds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.stack.ports import LOOPBACK, free_ports


def free_port() -> int:
    """A port on which nobody listens now, and which no other process is given before long."""
    return free_ports(1)[0]


@contextmanager
def taken_port(port: int | None = None) -> Iterator[int]:
    """A port on which this process listens, and never answers."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # free means the same as for `is_free`: closed connections don't count
        holder.bind((LOOPBACK, free_port() if port is None else port))
        holder.listen()
        yield int(holder.getsockname()[1])
