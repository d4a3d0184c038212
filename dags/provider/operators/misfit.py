"""A task that fails and says why: what stands for a dataset whose spec is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context


class MisfitOperator(BaseOperator):
    """Fails with `why`."""

    def __init__(self, *, why: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.why = why

    def execute(self, context: Context) -> NoReturn:  # noqa: ARG002 -- Airflow's signature
        """Fail."""
        raise AirflowFailException(self.why)
