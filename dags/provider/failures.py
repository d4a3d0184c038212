"""How a failed step ends its task.

Rules:
- A failure that says something of the version is final: the version is withdrawn from the nodes, and Airflow does not try again. All others
  are tried again, as the task's `retries` say; nodes go on by themselves meanwhile.
- The message names step, dataset, version, node where there is one, and who must act; the version that clients read is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.provider.cluster import Cluster
from dags.provider.hook import RedkvHook
from pipeline.format.errors import RedkvError
from pipeline.load.nodes import Nodes
from pipeline.load.phases import active_of, is_final
from pipeline.load.progress import Step

if TYPE_CHECKING:
    from airflow.sdk import Context


@contextmanager
def told(step: Step, dataset: str, version: str) -> Iterator[None]:
    """Let a failure end the task as this module's rules say.

    Raises:
        AirflowFailException, AirflowException: instead of a RedkvError.
    """
    try:
        yield
    except RedkvError as failure:
        kind = AirflowFailException if is_final(failure) else AirflowException
        raise kind(sentence(step, dataset, version, failure)) from failure


@contextmanager
def withdrawing(cluster: Cluster, nodes: Nodes, dataset: str, version: str) -> Iterator[None]:
    """Take a version back from the nodes if it fails for good."""
    try:
        yield
    except RedkvError as failure:
        if is_final(failure):
            cluster.phases.withdraw(dataset, version, nodes, str(failure))
        raise


def sentence(step: Step, dataset: str, version: str, failure: RedkvError) -> str:
    """A failure for people."""
    node = failure.fields.get("node")
    where = f" on {node}" if node else ""
    what = f"step {step} of {dataset} {version} failed{where}: {type(failure).__name__}: {failure.message}"
    return f"{what} (who must act: {failure.acts})"


def load_failed(context: Context, dataset: str = "", redkv_conn_id: str = "") -> None:
    """The callback of a task that failed for good: says what clients read now.

    Of which dataset, and on which cluster, is what the callback is given, else what the task has. The process of the task may be dead, and
    what it found out with it.
    """
    task = context["task"]
    dataset, conn_id = dataset or getattr(task, "dataset", ""), redkv_conn_id or getattr(task, "redkv_conn_id", "")
    if not dataset or not conn_id:
        return
    hook = RedkvHook(conn_id)
    try:
        active = active_of(hook.cluster.documents.desired(), dataset)
    except RedkvError as unknown:
        hook.log.error("%s: what clients read can't be told: %s", task.task_id, unknown)  # noqa: TRY400 -- its traceback says nothing more
        return
    reads = _reads(dataset, active.version if active else None, getattr(task, "version", None))
    hook.log.error("task %s failed; %s: %s", task.task_id, reads, context.get("exception"))


def _reads(dataset: str, active: str | None, own: str | None) -> str:
    """What clients read, when a task that brings the version `own` failed."""
    if active is None:
        return f"clients read no version of {dataset}, as before"
    if active == own:
        return f"the activation of {dataset} {active} is written, nodes finish it; until then some may read the version before"
    return f"clients read {dataset} {active}, as before"
