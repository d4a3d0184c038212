"""Sensors: a Hive partition that is there, a version that clients read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, conf
from airflow.sdk.exceptions import AirflowException

from dags.provider.hook import DEFAULT_CONNECTION, RedkvHook
from dags.provider.metastore import has_partition
from dags.provider.triggers import ACTIVE_POLL_S, PARTITION_POLL_S, PartitionTrigger, VersionActiveTrigger, patiently
from dags.provider.waits import is_active
from pipeline.format.errors import RedkvError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger


class _Sensor(BaseSensorOperator):
    """Waits in the triggerer if it is deferrable, else as its mode says."""

    def __init__(self, *, redkv_conn_id: str, deferrable: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.redkv_conn_id, self.deferrable = redkv_conn_id, deferrable

    def trigger(self) -> BaseTrigger:
        """What waits for it in the triggerer."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Look once; if there is nothing yet, go on looking elsewhere."""
        if not self.deferrable:
            return super().execute(context)
        if not self.poke(context):
            self.defer(trigger=self.trigger(), method_name="resumed", timeout=timedelta(seconds=self.timeout))
        return None

    def resumed(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 -- Airflow's signature
        """The trigger's event came.

        Raises:
            AirflowException: it is a failure.
        """
        if event["error"]:
            failure = RedkvError.from_json(event["error"])
            raise AirflowException(f"{type(failure).__name__}: {failure}") from failure


class HivePartitionSensor(_Sensor):
    """Waits until a Hive table has a partition, by the metastore of a cluster's connection."""

    template_fields: Sequence[str] = ("table", "partition", "redkv_conn_id")

    def __init__(
        self,
        *,
        table: str,
        partition: str,
        redkv_conn_id: str = DEFAULT_CONNECTION,
        poke_interval: float = PARTITION_POLL_S,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(redkv_conn_id=redkv_conn_id, deferrable=deferrable, poke_interval=poke_interval, **kwargs)
        self.table, self.partition = table, partition

    def trigger(self) -> BaseTrigger:
        """See the base."""
        return PartitionTrigger(
            table=self.table, partition=self.partition, redkv_conn_id=self.redkv_conn_id, poll_s=float(self.poke_interval)
        )

    def poke(self, context: Context) -> bool:  # noqa: ARG002 -- Airflow's signature
        """One look."""
        cluster = RedkvHook(self.redkv_conn_id).cluster
        look = patiently(lambda: has_partition(cluster.settings.metastore_uris, self.table, self.partition), self.log.warning)
        return look() is not None


class VersionActiveSensor(_Sensor):
    """Waits until clients read a version of a dataset, or a newer one, on all nodes."""

    template_fields: Sequence[str] = ("dataset", "version", "redkv_conn_id")

    def __init__(
        self,
        *,
        dataset: str,
        version: str,
        redkv_conn_id: str = DEFAULT_CONNECTION,
        poke_interval: float = ACTIVE_POLL_S,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(redkv_conn_id=redkv_conn_id, deferrable=deferrable, poke_interval=poke_interval, **kwargs)
        self.dataset, self.version = dataset, version

    def trigger(self) -> BaseTrigger:
        """See the base."""
        return VersionActiveTrigger(
            dataset=self.dataset, version=self.version, redkv_conn_id=self.redkv_conn_id, poll_s=float(self.poke_interval)
        )

    def poke(self, context: Context) -> bool:  # noqa: ARG002 -- Airflow's signature
        """One look."""
        cluster = RedkvHook(self.redkv_conn_id).cluster
        with cluster.nodes() as nodes:
            look = patiently(lambda: is_active(cluster, nodes, self.dataset, self.version), self.log.warning)
            return look() is not None
