"""The way back as a task: clients read an older version again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from dags.provider.failures import told
from dags.provider.flags import flag
from dags.provider.hook import DEFAULT_CONNECTION, RedkvHook
from dags.provider.operators.build import author
from pipeline.load.progress import Step
from pipeline.load.wayback import choose

if TYPE_CHECKING:
    from airflow.sdk import Context

TARGET = "target"  # the key in the task's state store


class RedkvRollbackOperator(BaseOperator):
    """Lets clients read the version `to`, by default the newest good one before the active; `mark_bad` marks the one that they leave.

    A task that is tried again goes to the version that it chose first, so it never goes back twice; one that is cleared after its success
    goes back once more. Returns `{"dataset", "version", "left", "marked_bad", "changed", "swap_window_s"}`.
    """

    template_fields: Sequence[str] = ("dataset", "to", "mark_bad", "redkv_conn_id")

    def __init__(
        self, *, dataset: str, to: str = "", mark_bad: bool | str = False, redkv_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dataset, self.to, self.mark_bad, self.redkv_conn_id = dataset, to, mark_bad, redkv_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Swap."""
        store = context["task_state_store"]
        with told(Step.ACTIVATE, self.dataset, self.to or "(the version before)"):
            cluster = RedkvHook(self.redkv_conn_id, author=author(context)).cluster
            kept = store.get(TARGET)
            target = kept if isinstance(kept, str) else self.to
            if not target:
                chosen = choose(cluster.documents.desired(), self.dataset, None)
                target = chosen.version if chosen else ""
            store.set(TARGET, target)
            report = cluster.swapper().rollback(self.dataset, target or None, mark_bad=flag(self.mark_bad))
        store.delete(TARGET)
        return {
            "dataset": report.dataset,
            "version": report.version,
            "left": report.left,
            "marked_bad": report.marked_bad,
            "changed": report.changed,
            "swap_window_s": report.swap_window_s,
        }
