"""Links from a task's page: to Spark's own, and to what a node says of the load.

A link is known while its task runs, so the task stores it (`Linked.link`) and Airflow reads it from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from airflow.sdk import BaseOperator, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey


class Linked:
    """What an operator with links keeps of them, by their key."""

    def __init__(self) -> None:
        self.urls: dict[str, str] = {}

    def set(self, context: Context, link: BaseOperatorLink, url: str) -> None:
        """Let a link lead somewhere, from now on."""
        self.urls[link.xcom_key] = url
        context["ti"].xcom_push(key=link.xcom_key, value=url)


@attrs.define()
class _StoredLink(BaseOperatorLink):
    """A link that its task stored."""

    @property
    def name(self) -> str:
        """Its button."""
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 -- Airflow's signature
        """The address, empty if the task did not come so far."""
        linked: Linked | None = getattr(operator, "linked", None)
        return linked.urls.get(self.xcom_key, "") if linked else ""


@attrs.define()
class SparkUiLink(_StoredLink):
    """The pages of the Spark application that builds."""

    @property
    def name(self) -> str:
        """Its button."""
        return "Spark UI"


@attrs.define()
class LoadStatusLink(_StoredLink):
    """The status of the node that a task speaks of: one that failed, else the first."""

    @property
    def name(self) -> str:
        """Its button."""
        return "Load status"
