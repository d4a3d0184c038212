"""What asks the servers: redis-benchmark with evenly random keys, and a generator of ours with Zipf-distributed ones.

Both have CONNECTIONS connections and keep one pipeline of P commands under way on each. redis-benchmark knows no Zipf distribution; ours is
Python, prepared in advance, and counts reply bytes. At P=1 it may be slower than the server: its figures are for comparing, not for fame.
"""

from __future__ import annotations

import csv
import io
import select
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter

import numpy as np

from bench.serving.data import KEY_DIGITS
from tests.support.resp import encode_command

CONNECTIONS = 50
RANDOM = "__rand_int__"  # what redis-benchmark replaces by twelve digits
ZIPF_EXPONENT = 0.99  # YCSB's


def even(port: int, words: Sequence[str], keys: int, pipeline: int, requests: int) -> float:
    """Requests per second of redis-benchmark; RANDOM in `words` is one of `keys` numbers."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(CONNECTIONS), "-P", str(pipeline), "-n", str(requests), "-r", str(keys)]
    ran = subprocess.run([*command, "--csv", *words], capture_output=True, text=True, check=True)
    assert not ran.stderr, ran.stderr
    [row] = csv.DictReader(io.StringIO(ran.stdout))
    return float(row["rps"])


class Zipf:
    """A command on Zipf-distributed keys: the most frequent ones lie anywhere among all `keys`."""

    def __init__(self, words: Sequence[str], keys: int, pipeline: int, reply_bytes: int) -> None:
        self._words = words
        self._pipeline = pipeline
        self._reply_bytes = reply_bytes * pipeline
        self._random = np.random.default_rng(7)
        self._weights = np.cumsum(np.arange(1, keys + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
        self._numbers = self._random.permutation(keys)

    def prepare(self, requests: int) -> list[list[bytes]]:
        """About so many requests that were not there before: the pipelines of each connection."""
        count = requests // (CONNECTIONS * self._pipeline) * self._pipeline  # of a connection
        ranks = np.searchsorted(self._weights, self._random.random(CONNECTIONS * count) * self._weights[-1])
        chosen = [f"{number:0{KEY_DIGITS}}" for number in self._numbers[ranks].tolist()]
        commands = [encode_command(*(word.replace(RANDOM, number) for word in self._words)) for number in chosen]
        pipelines = [b"".join(commands[place : place + self._pipeline]) for place in range(0, len(commands), self._pipeline)]
        return [pipelines[first::CONNECTIONS] for first in range(CONNECTIONS)]

    def run(self, port: int, prepared: list[list[bytes]]) -> float:
        """Requests per second."""
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in prepared]
        with ExitStack() as opened, select.epoll() as poll:
            connections = {opened.enter_context(one).fileno(): one for one in sockets}
            waiting = dict(zip(connections, map(iter, prepared), strict=True))
            owed = dict.fromkeys(connections, 0)
            began = perf_counter()
            for descriptor, connection in connections.items():
                poll.register(descriptor, select.EPOLLIN)
                connection.sendall(next(waiting[descriptor]))
                owed[descriptor] = self._reply_bytes
            while waiting:
                for descriptor, _ in poll.poll():
                    received = len(connections[descriptor].recv(1 << 20))
                    assert 0 < received <= owed[descriptor], f"{received} bytes where {owed[descriptor]} were owed"
                    owed[descriptor] -= received
                    if owed[descriptor] == 0:
                        following = next(waiting[descriptor], None)
                        if following is None:
                            del waiting[descriptor]
                        else:
                            connections[descriptor].sendall(following)
                            owed[descriptor] = self._reply_bytes
            took_s = perf_counter() - began
        return sum(map(len, prepared)) * self._pipeline / took_s
