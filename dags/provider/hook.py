"""The hook: an Airflow connection of type `redkv` as a cluster."""

from __future__ import annotations

from functools import cached_property

from airflow.sdk import BaseHook

from dags.provider.cluster import Cluster, settings_of
from pipeline.format.errors import RedkvError
from pipeline.load.coverage import Require

DEFAULT_CONNECTION = "redkv_default"


class RedkvHook(BaseHook):
    """A cluster by its connection; `author` is who acts, for the audit trail, `require` which nodes must be there."""

    conn_name_attr = "redkv_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = "redkv"
    hook_name = "redkv cluster"

    def __init__(self, redkv_conn_id: str = DEFAULT_CONNECTION, author: str = "", require: Require = Require.ALL) -> None:
        super().__init__()
        self.redkv_conn_id = redkv_conn_id
        self._author, self._require = author, require

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster.

        Raises:
            UsageError: the connection does not name one.
        """
        settings = settings_of(self.get_connection(self.redkv_conn_id), self._author)
        return Cluster(settings, lambda line: self.log.info("%s", line), self._require)

    def get_conn(self) -> Cluster:
        """The cluster, by Airflow's name for it."""
        return self.cluster

    def test_connection(self) -> tuple[bool, str]:
        """Whether the store answers and knows the cluster, in a sentence, for the button `Test`."""
        try:
            topology = self.cluster.documents.topology()
        except RedkvError as failure:
            return False, str(failure)
        return True, f"cluster {topology.cluster}: {len(topology.nodes)} nodes, {len(topology.shards)} shards"
