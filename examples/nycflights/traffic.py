"""Client traffic while the demo loads: one process that reads random keys and measures, at a bounded rate.

Half of its reads are GETs of live keys, which clients own; they are the same work in every phase, so their latencies compare. The other
half read keys of the datasets, whose replies must be those of a version that is, or is being, loaded, and must not go back to an older one.
Latencies are the client's: redis-py's own work is part of them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError

from examples.nycflights.compare import ask, connect, same
from examples.nycflights.expected import Value

PAUSE_S = 0.002  # between reads: a few hundred a second leave the machine's cores to the load
READS_MAX = 1_000_000  # in all; then the process ends whatever happens
FAILURES_MAX = 20  # kept in words
WAIT_S_MAX = 60.0  # for an answer of the process
LIVE_KEYS = 2_000
STOP = "stop"

Versions = Sequence[Value | None]
"""What a key may hold, in the order of the versions; None: the key is not there."""


@dataclass
class Phase:
    """What was seen between two steps of the demo: latencies in seconds of live keys and of loaded keys."""

    live: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)


@dataclass
class Seen:
    """All that the process saw. `failures` are client errors and wrong replies, in words."""

    phases: dict[str, Phase] = field(default_factory=lambda: defaultdict(Phase))
    reads: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    def fails(self, words: str) -> None:
        """Note an error or a wrong reply."""
        self.failed += 1
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(words)


def live_key(number: int) -> str:
    """A key that clients own."""
    return f"session:{number}"


def live_value(number: int) -> bytes:
    """What stands there."""
    return b"client data %d" % number * 5


class Traffic:
    """The process and the line to it. Use it as a context: it ends with the block."""

    def __init__(self, host: str, port: int, keys: Mapping[bytes, Versions], seed: int) -> None:
        context = get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, host, port, dict(keys), seed), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        self._answer()  # connected
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(WAIT_S_MAX)

    def phase(self, name: str) -> None:
        """From now on reads belong to this phase."""
        self._line.send((name, 0))

    def measure(self, name: str, reads: int) -> None:
        """A phase of its own of so many reads; returns when they are done."""
        self._line.send((name, reads))
        self._answer()

    def finish(self) -> Seen:
        """End it; what it saw."""
        self._line.send((STOP, 0))
        seen: Seen = self._answer()
        return seen

    def _answer(self) -> Any:
        if not self._line.poll(WAIT_S_MAX):
            raise TimeoutError(f"the client process did not answer within {WAIT_S_MAX} s")
        answer = self._line.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _run(line: Connection, host: str, port: int, keys: dict[bytes, Versions], seed: int) -> None:
    """The process: reads until it is told to stop."""
    reader = _Reader(host, port, keys, seed)
    line.send("ready")
    name, left = "", 0
    for _ in range(READS_MAX):
        if line.poll(PAUSE_S):
            name, left = line.recv()
            if name == STOP:
                break
        reader.read(name)
        left -= 1
        if left == 0:
            line.send("done")
    reader.seen.phases.pop("", None)
    reader.seen.phases = dict(reader.seen.phases)
    line.send(reader.seen)


class _Reader:
    def __init__(self, host: str, port: int, keys: dict[bytes, Versions], seed: int) -> None:
        self.seen = Seen()
        self._cluster = connect(host, port)
        self._random = random.Random(seed)
        self._keys = keys
        self._names = list(keys)
        self._newest: dict[bytes, int] = {}  # by key: the newest version that was seen

    def read(self, phase: str) -> None:
        self.seen.reads += 1
        try:
            if self._random.random() < 0.5:
                self._read_live(self.seen.phases[phase].live)
            else:
                self._read_loaded(self.seen.phases[phase].loaded)
        except RedisError as failed:
            self.seen.fails(f"{phase}: {type(failed).__name__}: {failed}")

    def _read_live(self, latencies: list[float]) -> None:
        number = self._random.randrange(LIVE_KEYS)
        begin = perf_counter()
        reply = self._cluster.get(live_key(number))
        latencies.append(perf_counter() - begin)
        if reply != live_value(number):
            self.seen.fails(f"live key {live_key(number)} reads {reply!r}")

    def _read_loaded(self, latencies: list[float]) -> None:
        key = self._random.choice(self._names)
        versions = self._keys[key]
        shape = next(value for value in versions if value is not None)
        begin = perf_counter()
        reply = ask(self._cluster, key, shape)
        spent = perf_counter() - begin
        if reply:
            latencies.append(spent)
        matching = [index for index, value in enumerate(versions) if same(value, reply)]
        newest = self._newest.get(key, 0)
        if not matching:
            self.seen.fails(f"{key!r} reads {reply!r}, which no version says")
        elif max(matching) < newest:
            self.seen.fails(f"{key!r} went back to version {max(matching)} after {newest}")
        else:
            self._newest[key] = max(newest, min(one for one in matching if one >= newest))
