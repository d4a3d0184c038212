"""What tasks and triggers wait for, as looks at a cluster."""

from __future__ import annotations

from dags.provider.cluster import Cluster
from pipeline.format.records import version_order
from pipeline.load.nodes import Nodes
from pipeline.load.phases import Built, active_of
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus
from pipeline.load.waiting import Wait


def wait_of(cluster: Cluster, step: Step, built: Built, nodes: Nodes, epoch: int, *, over_newer: bool) -> Wait | None:
    """What a step waits for after its write; verify waits for an upsert's version before, if there is one."""
    if step is Step.VERIFY:
        return cluster.phases.the_one_before(built, nodes)
    return cluster.phases.resume(step, built, nodes, epoch, over_newer=over_newer)


def is_active(cluster: Cluster, nodes: Nodes, dataset: str, version: str) -> bool:
    """Whether clients read a version, or a newer one, on all nodes."""
    active = active_of(cluster.documents.desired(), dataset)
    if active is None or version_order(active.version) < version_order(version):
        return False
    nodes.topology = cluster.documents.topology()
    for answer in nodes.statuses().values():
        found = answer.find(dataset, active.version) if isinstance(answer, NodeStatus) else None
        if found is None or (found.build_id, found.state) != (active.build_id, State.ACTIVE):
            return False
    return True
