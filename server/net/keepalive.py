"""TCP keepalive: a peer that went without a word is noticed, as Redis does it."""

from __future__ import annotations

import socket
from typing import Protocol

INTERVAL_S_MAX = 32_767  # of Linux; a longer one is an error there, and means as little as this one
PROBES = 3  # Redis' choice: a third of the interval between two, and dead after three


class Options(Protocol):
    """What takes socket options: a socket, or what the event loop shows of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """As socket.setsockopt."""


def keep_alive(peer: Options, interval_s: int) -> None:
    """Ask the kernel to look whether a silent peer is still there."""
    interval_s = min(interval_s, INTERVAL_S_MAX)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, interval_s // PROBES))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
