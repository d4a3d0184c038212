"""Steady readers of whole hashes through RedisCluster, who remember what they saw of each key, one entry per change."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pipeline.spec import DatasetSpec
from tests.support.clusters import Cluster

READERS = 3
READ_KEYS = 20  # by every reader, again and again
PAUSE_S = 0.003  # between two reads: without it, they would leave no processor to what they watch
WAIT_S = 60.0  # for what takes a tenth of a second on an idle machine


class SteadyReaders:
    """A context manager. `seen` has what each reader saw of each key: versions, or what is no whole hash of one version."""

    def __init__(self, cluster: Cluster, spec: DatasetSpec, numbers: Sequence[int] = range(READ_KEYS)) -> None:
        self._cluster, self._spec, self._numbers = cluster, spec, numbers
        self.seen: dict[str, list[str]] = {}
        self._turns = [0] * READERS
        self._moved = threading.Condition()
        self._ended = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in range(READERS)]

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        self.await_turn()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for one in self._threads:
            one.join()
        assert not self._failures, self._failures

    def await_turn(self) -> None:
        """Until every reader read every key once more, from now on."""
        with self._moved:
            wanted = [turns + 2 for turns in self._turns]  # one may be half done
            deadline = time.monotonic() + WAIT_S
            while any(turns < want for turns, want in zip(self._turns, wanted, strict=True)) and not self._failures:
                assert self._moved.wait(deadline - time.monotonic()), "the readers stand still"
        assert not self._failures, self._failures

    def _run(self, reader: int) -> None:
        try:
            with self._cluster.client() as client:
                while not self._ended.is_set():
                    for number in self._numbers:
                        self._ended.wait(PAUSE_S)
                        told = client.hgetall(f"{self._spec.prefix}{number}")
                        versions = {text.removesuffix(f" {number}") for text in told.values()}
                        what = versions.pop() if len(told) == 2 and len(versions) == 1 else f"not whole: {told}"
                        changes = self.seen.setdefault(f"reader {reader}, key {number}", [])
                        if not changes or changes[-1] != what:
                            changes.append(what)
                    self._turned(reader)
        except BaseException as failed:  # noqa: BLE001 -- told by whoever waits for this thread
            self._failures.append(failed)
            self._turned(reader)

    def _turned(self, reader: int) -> None:
        with self._moved:
            self._turns[reader] += 1
            self._moved.notify_all()
