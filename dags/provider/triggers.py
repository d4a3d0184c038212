"""What waits in Airflow's triggerer.

Rules:
- The triggerer's event loop is everybody's: whatever may block (store, nodes, metastore) runs in a thread, look by look. A wait that is
  cancelled ends with the look that it is in, and closes what it opened only then.
- A trigger holds nothing that its arguments do not say: the triggerer may start it anew, elsewhere, at any time.
- Its event is `{"error": None}` or a failure as RedkvError.to_json; the task tells it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

from airflow.sdk import Connection
from airflow.triggers.base import BaseTrigger, TriggerEvent

from dags.provider.cluster import Cluster, settings_of
from dags.provider.flags import required
from dags.provider.hook import RedkvHook
from dags.provider.metastore import has_partition
from dags.provider.waits import is_active, wait_of
from pipeline.format.errors import Outcome, RedkvError
from pipeline.load.coverage import window_of
from pipeline.load.progress import Step

STEP_POLL_S = 1.0  # of a step on its way: nodes wake each other, this is how soon the next task starts
ACTIVE_POLL_S = 15.0  # of a version that another DAG brings
PARTITION_POLL_S = 60.0  # of a partition: a metastore is shared by many

P = ParamSpec("P")
T = TypeVar("T")

Look = Callable[[], dict[str, Any] | None]
"""One look: what the task shall know, None as long as it is to wait."""


class _Trigger(BaseTrigger):
    """Looks again and again."""

    def __init__(self, redkv_conn_id: str, poll_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types
        self.redkv_conn_id, self.poll_s = redkv_conn_id, poll_s

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What makes it anew, beside the connection and the interval."""

    @abstractmethod
    def open(self, connection: Connection, stack: ExitStack) -> Look:
        """Begin to look; what `stack` takes is closed at the end."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class and arguments."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {
            **self.arguments(),
            "redkv_conn_id": self.redkv_conn_id,
            "poll_s": self.poll_s,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when the wait is over."""
        try:
            seen = await self._wait()
        except RedkvError as failure:
            yield TriggerEvent({"error": failure.to_json()})
        else:
            yield TriggerEvent({"error": None, **seen})

    async def _wait(self) -> dict[str, Any]:
        connection = await RedkvHook.aget_connection(self.redkv_conn_id)
        stack = ExitStack()
        try:
            look = await _to_its_end(self.open, connection, stack)
            while (seen := await _to_its_end(look)) is None:  # noqa: ASYNC110 -- store and nodes are asked, they tell nobody
                await asyncio.sleep(self.poll_s)
            return seen
        finally:
            await asyncio.to_thread(stack.close)

    def tell(self, line: str) -> None:
        """Into the log of the task."""
        self.log.info("%s", line)


class StepTrigger(_Trigger):
    """Waits until every node has brought a version as far as a step of its load wants it; `epoch` is that of the step's write."""

    def __init__(
        self,
        *,
        dataset: str,
        version: str,
        step: str,
        epoch: int,
        over_newer: bool = False,
        require: str = "all",
        redkv_conn_id: str,
        poll_s: float = STEP_POLL_S,
    ) -> None:
        super().__init__(redkv_conn_id, poll_s)
        self.dataset, self.version = dataset, version
        self.step, self.epoch, self.over_newer, self.require = step, epoch, over_newer, require

    def arguments(self) -> dict[str, Any]:
        """See the class."""
        names = ("dataset", "version", "step", "epoch", "over_newer", "require")
        return {name: getattr(self, name) for name in names}

    def open(self, connection: Connection, stack: ExitStack) -> Look:
        """A look at all nodes."""
        cluster = Cluster(settings_of(connection), self.tell, required(self.require))
        nodes = stack.enter_context(cluster.nodes())
        built = cluster.built(self.dataset, self.version)
        wait = wait_of(cluster, Step(self.step), built, nodes, self.epoch, over_newer=self.over_newer)

        def look() -> dict[str, Any] | None:
            reached = wait.look() if wait else {}
            if reached is None:
                return None
            samples = sum(one.samples_checked for one in reached.values())
            return {"swap_window_s": window_of(nodes.topology, reached), "samples_checked": samples}

        return look


class VersionActiveTrigger(_Trigger):
    """Waits until clients read a version of a dataset, or a newer one, on all nodes."""

    def __init__(self, *, dataset: str, version: str, redkv_conn_id: str, poll_s: float = ACTIVE_POLL_S) -> None:
        super().__init__(redkv_conn_id, poll_s)
        self.dataset, self.version = dataset, version

    def arguments(self) -> dict[str, Any]:
        """See the class."""
        return {"dataset": self.dataset, "version": self.version}

    def open(self, connection: Connection, stack: ExitStack) -> Look:
        """A look at the desired state and all nodes."""
        cluster = Cluster(settings_of(connection), self.tell)
        nodes = stack.enter_context(cluster.nodes())
        return patiently(lambda: is_active(cluster, nodes, self.dataset, self.version), self.tell)


class PartitionTrigger(_Trigger):
    """Waits until a Hive table has a partition."""

    def __init__(self, *, table: str, partition: str, redkv_conn_id: str, poll_s: float = PARTITION_POLL_S) -> None:
        super().__init__(redkv_conn_id, poll_s)
        self.table, self.partition = table, partition

    def arguments(self) -> dict[str, Any]:
        """See the class."""
        return {"table": self.table, "partition": self.partition}

    def open(self, connection: Connection, stack: ExitStack) -> Look:  # noqa: ARG002 -- nothing is kept open
        """A question to the metastore."""
        uris = settings_of(connection).metastore_uris
        return patiently(lambda: has_partition(uris, self.table, self.partition), self.tell)


async def _to_its_end(function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """What a function in a thread returns. Threads can't be cancelled: whoever is cancelled here waits for it first."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **more))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def patiently(reached: Callable[[], bool], tell: Callable[[str], object]) -> Look:
    """Looks for something that others bring: an outage on the way there is told and waited out, the task's own timeout ends it."""

    def look() -> dict[str, Any] | None:
        try:
            return {} if reached() else None
        except RedkvError as failure:
            if failure.outcome is not Outcome.RETRYABLE:
                raise
            tell(str(failure))
            return None

    return look
