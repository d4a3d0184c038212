"""What is told when a load misses its deadline: Airflow's triggerer calls it, so it is a coroutine, and blocks nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from airflow.sdk import Connection

from dags.provider.cluster import Cluster, settings_of
from dags.provider.hook import RedkvHook
from pipeline.format.errors import RedkvError
from pipeline.load.nodes import Answer
from pipeline.load.phases import active_of
from pipeline.load.status import NodeStatus

log = structlog.get_logger(__name__)


async def deadline_missed(dataset: str, redkv_conn_id: str, context: dict[str, Any] | None = None) -> None:
    """Say that a run is late, what clients read, and how far each node is."""
    connection = await RedkvHook.aget_connection(redkv_conn_id)
    run = (context or {}).get("dag_run") or {}
    late = f"the load of {dataset} missed its deadline (run {run.get('dag_run_id', 'unknown')})"
    try:
        log.error("%s: %s", late, await asyncio.to_thread(_where, connection, dataset))
    except RedkvError as unknown:
        log.error("%s: how far it is can't be told: %s", late, unknown)  # noqa: TRY400 -- its traceback says nothing more


def _where(connection: Connection, dataset: str) -> str:
    cluster = Cluster(settings_of(connection), log.info)
    active = active_of(cluster.documents.desired(), dataset)
    with cluster.nodes() as nodes:
        told = "; ".join(f"{name} {_how_far(answer, dataset)}" for name, answer in nodes.statuses().items())
    return f"clients read {active.version if active else 'none yet'}; {told}"


def _how_far(answer: Answer, dataset: str) -> str:
    if not isinstance(answer, NodeStatus):
        return "does not answer"
    return ", ".join(f"{one.version} {one.state}" for one in answer.datasets.get(dataset, ())) or "holds none"
