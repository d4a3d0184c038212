"""The step of a load that waits for its turn on the cluster, and what it tells meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pipeline.format.crashpoints import crash_point
from pipeline.format.queue import LoadQueue, QueuedLoad
from pipeline.load.documents import ClusterDocuments
from pipeline.load.progress import QueueSeen, Step
from pipeline.load.queue import Place, Queue, Waiter, left
from pipeline.load.steps import Steps, coordinator_point


@contextmanager
def in_turn(steps: Steps, dataset: str, version: str, priority: int, limit: int) -> Iterator[None]:
    """Wait until fewer than `limit` loads run that came before, or are more urgent; the place is given up at the end.

    Raises:
        RedkvError: the store failed.
    """
    documents = steps.documents
    queue = Queue(documents.store, documents.cluster, steps.sleep)
    load = QueuedLoad(dataset=dataset, version=version, priority=priority, by=documents.process, asked_at_ms=documents.now_ms())
    for one in queue.read().loads:
        if one.dataset == dataset and one.by != load.by:
            steps.note(f"another load of {dataset} is under way: {queued_line(one)}; the newest version stands at the end")

    def seen(queue: LoadQueue) -> None:
        known = queue.find(dataset, version)
        if known is not None:
            steps.listener(QueueSeen(queue.waiting.index(known) + 1, queue))

    def dropped(one: QueuedLoad) -> None:
        steps.note(f"{_named(one)} gave no sign of life for {steps.patience.silence_s_max:g} s: taken from the queue")

    with Place(queue, load) as place:
        with steps.step(Step.QUEUE, f"priority {priority}, at most {limit} loads at once on {documents.cluster}"):
            crash_point(coordinator_point(Step.QUEUE, "written"))
            waiter = Waiter(seen, dropped, documents.now_ms, steps.clock, steps.sleep, steps.patience.silence_s_max)
            place.wait(limit, waiter)
        yield


def leave_queue(documents: ClusterDocuments, dataset: str, version: str) -> None:
    """Take away what a load left in the queue that died after its version was activated."""
    Queue(documents.store, documents.cluster).change(lambda queue: left(queue, dataset, version))


def queue_line(place: int, queue: LoadQueue) -> str:
    """A load's place for people, and who runs, since when."""
    running = "; ".join(map(queued_line, queue.running))
    return f"place {place} of {len(queue.waiting)}; {f'now: {running}' if running else 'none runs'}"


def queued_line(one: QueuedLoad) -> str:
    """A load in the queue for people."""
    word, at_ms = ("waiting", one.asked_at_ms) if one.started_at_ms is None else ("running", one.started_at_ms)
    return f"{_named(one)}, {word} since {datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC, priority {one.priority}"


def _named(one: QueuedLoad) -> str:
    return f"{one.dataset} {one.version} by {one.by}"
