"""Ports of the loopback interface: the only one on which the local stack listens.

Between the choice of a port and the server's listen on it nobody else may take it. Two could: a connection that goes out, so ports are
chosen below those that the kernel takes for these, and another process that chooses at the same moment. So whoever chooses binds the UDP
port of the same number, which nothing here uses, and a number whose UDP port is taken is not chosen.
"""

from __future__ import annotations

import atexit
import random
import socket
from collections import deque

LOOPBACK = "127.0.0.1"
# Below 32768, where Linux begins to take ports for outgoing connections: a stack that is down must find its ports free again.
FIRST_PORT, LAST_PORT = 20_000, 32_000
KEPT_MAX = 256  # more than a process starts at once; those that were kept for longer have a listener by now, or need none any more

_kept: deque[socket.socket] = deque()


def free_ports(count: int) -> list[int]:
    """Different ports on which nobody listens now, and which no other process is given before long."""
    candidates = random.sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port) and _keep(port):
            found.append(port)
    return found


@atexit.register
def _release() -> None:
    while _kept:
        _kept.popleft().close()


def _keep(port: int) -> bool:
    """Choose a port; False if another process has, a moment ago."""
    keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        keeper.bind((LOOPBACK, port))
    except OSError:
        keeper.close()
        return False
    _kept.append(keeper)
    if len(_kept) > KEPT_MAX:
        _kept.popleft().close()
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections that closed just now don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False
