"""The queue of loads: a load takes its place, waits for its turn, shows that it lives, and leaves.

Rules:
- At most `limit` loads run at once. Whoever has a place so far ahead that it may run starts itself: nobody is told by the one before.
- Two loads of one version share an entry, so a load that is started again after its coordinator died goes on in its place.
- A thread lets the entry's beat grow, and puts the entry back if somebody took it for dead. A beat that fails is followed by the next.
- Whoever waits takes away entries that were silent for too long, by its own clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread
from types import TracebackType
from typing import Self

from pipeline.format.errors import ConflictError, ObjectMissingError, OutcomeUnknownError, RedkvError
from pipeline.format.layout import queue_key
from pipeline.format.queue import LoadQueue, QueuedLoad
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 50  # many loads that begin on the hour meet here; each pause is short
PAUSE_S_MAX = 0.2  # before another attempt, a random part of it
BEAT_S = 10.0  # between two signs of life
SILENCE_S_MAX = 60.0  # six of them: a store that is away for some seconds costs nobody its place
LOOK_S = 1.0  # between two looks of whoever waits

Change = Callable[[LoadQueue], LoadQueue]


class Queue:
    """The document in the store."""

    def __init__(self, store: ObjectStore, cluster: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._store, self._cluster, self._sleep = store, cluster, sleep

    def read(self) -> LoadQueue:
        """Who runs and who waits."""
        return self._read()[0]

    def change(self, change: Change) -> LoadQueue:
        """Apply a change to what is there, and write it; the document as it stands then.

        Raises:
            ConflictError: other writers were faster, ATTEMPTS_MAX times.
        """
        for _ in range(ATTEMPTS_MAX):
            current, etag = self._read()
            wanted = change(current)
            if wanted == current:
                return current
            try:
                self._write(wanted, etag)
            except (ConflictError, OutcomeUnknownError):
                self._sleep(random.uniform(0, PAUSE_S_MAX))
            else:
                return wanted
        message = f"could not change {queue_key(self._cluster)}: {ATTEMPTS_MAX} times another writer was faster; repeat the command"
        raise ConflictError(message, cluster=self._cluster)

    def _read(self) -> tuple[LoadQueue, str | None]:
        key = queue_key(self._cluster)
        try:
            blob = self._store.get(key)
        except ObjectMissingError:
            return LoadQueue(cluster=self._cluster), None
        return LoadQueue.from_json(blob.data, key), blob.etag

    def _write(self, document: LoadQueue, etag: str | None) -> None:
        key = queue_key(self._cluster)
        if etag is None:
            self._store.create(key, document.to_json())
        else:
            self._store.replace(key, document.to_json(), etag)


def joined(queue: LoadQueue, load: QueuedLoad) -> LoadQueue:
    """A load takes its place: behind all others, or that of the same version, whose priority it can only raise."""
    known = queue.find(load.dataset, load.version)
    if known is None:
        return queue.model_copy(update={"loads": (*queue.loads, load)})
    update = {"by": load.by, "priority": max(known.priority, load.priority), "beat": known.beat + 1}
    return _replaced(queue, known, known.model_copy(update=update))


def beaten(queue: LoadQueue, load: QueuedLoad) -> LoadQueue:
    """It lives; if somebody took it for dead, it is back, running if it ran."""
    known = queue.find(load.dataset, load.version)
    return joined(queue, load) if known is None else _replaced(queue, known, known.model_copy(update={"beat": known.beat + 1}))


def started(queue: LoadQueue, load: QueuedLoad, limit: int, now_ms: int) -> LoadQueue:
    """It runs, if it is its turn: fewer run than may, and so few wait before it that all of them may start, too."""
    known = queue.find(load.dataset, load.version)
    if known is None:
        return joined(queue, load)
    if known.started_at_ms is not None or queue.waiting.index(known) >= limit - len(queue.running):
        return queue
    return _replaced(queue, known, known.model_copy(update={"started_at_ms": now_ms}))


def left(queue: LoadQueue, dataset: str, version: str) -> LoadQueue:
    """It is through, or gave up."""
    return queue.model_copy(update={"loads": tuple(one for one in queue.loads if (one.dataset, one.version) != (dataset, version))})


def without_silent(queue: LoadQueue, silent: QueuedLoad) -> LoadQueue:
    """Without one that gave no sign of life, unless it gives one now."""
    known = queue.find(silent.dataset, silent.version)
    return left(queue, silent.dataset, silent.version) if known is not None and known.beat == silent.beat else queue


def _replaced(queue: LoadQueue, old: QueuedLoad, new: QueuedLoad) -> LoadQueue:
    return queue.model_copy(update={"loads": tuple(new if one is old else one for one in queue.loads)})


class Place:
    """The place of one load in the queue, from entering to leaving this context; `wait` returns when it is its turn."""

    def __init__(self, queue: Queue, load: QueuedLoad, beat_s: float = BEAT_S) -> None:
        self._queue, self._load, self._beat_s = queue, load, beat_s
        self._ended = Event()
        self._beating = Thread(target=self._beat, name="queue", daemon=True)

    def __enter__(self) -> Self:
        self._queue.change(lambda queue: joined(queue, self._load))
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._beating.join()
        with suppress(RedkvError):  # what the load came to counts; others take away an entry that gives no sign of life
            self._queue.change(lambda queue: left(queue, self._load.dataset, self._load.version))

    def wait(self, limit: int, waiter: Waiter) -> None:
        """Return when it is its turn.

        Raises:
            RedkvError: the store failed.
        """
        while True:
            queue = self._queue.change(lambda queue: started(queue, self._load, limit, waiter.now_ms()))
            known = queue.find(self._load.dataset, self._load.version)
            if known is not None and known.started_at_ms is not None:
                self._load = known
                return
            waiter.seen(queue)
            for one in waiter.silent(queue, self._load):
                if self._queue.change(partial(without_silent, silent=one)).find(one.dataset, one.version) is None:
                    waiter.dropped(one)
            waiter.sleep(waiter.look_s)

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            with suppress(RedkvError):  # the next one comes soon
                self._queue.change(lambda queue: beaten(queue, self._load))


@dataclass
class Waiter:
    """How a load waits, and whom it tells: `seen` what it sees, `dropped` whom it took away."""

    seen: Callable[[LoadQueue], None]
    dropped: Callable[[QueuedLoad], None]
    now_ms: Callable[[], int]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    silence_s_max: float = SILENCE_S_MAX
    look_s: float = LOOK_S
    _beats: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def silent(self, queue: LoadQueue, own: QueuedLoad) -> list[QueuedLoad]:
        """Others whose beat did not change for so long."""
        now = self.clock()
        others = {(one.dataset, one.version): one for one in queue.loads if (one.dataset, one.version) != (own.dataset, own.version)}
        for name, one in others.items():
            if self._beats.get(name, (None, 0.0))[0] != one.beat:
                self._beats[name] = (one.beat, now)
        return [one for name, one in others.items() if now - self._beats[name][1] > self.silence_s_max]
