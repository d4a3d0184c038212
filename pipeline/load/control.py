"""An operator's word about one version, to all nodes: pause, resume, retry; and cancel, which is a change of the desired state.

Rules:
- A word is told in the audit trail before it is said.
- A node that does not answer, or refuses, holds up none of the others; all answers are handed back.
- Cancelling withdraws what clients never read; of a way back that is brought to nodes which lack it, it ends only that. A node that is away
  hears of it when it is back, and whoever waits for the version hears who did it.
"""

from __future__ import annotations

from typing import Literal

from pipeline.format.audit import Action
from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import NoWayBackError, RedkvError, UsageError, VersionActiveError
from pipeline.load.documents import ClusterDocuments, without_version
from pipeline.load.nodes import Nodes
from pipeline.load.states import State
from pipeline.load.waiting import Watch
from pipeline.load.wayback import cancelled, dataset_of

Word = Literal["pause", "resume", "retry"]

AT_REST = frozenset({State.ABSENT, State.STAGED, State.RETIRED})  # of a way back: nobody works on it


def say(documents: ClusterDocuments, nodes: Nodes, word: Word, dataset: str, version: str) -> dict[str, RedkvError | None]:
    """Say it to all nodes; what each refused, None where it was taken.

    Raises:
        UsageError: the nodes are not to hold this version.
    """
    _find(documents, dataset, version)
    documents.trail.tell(Action(word), dataset, documents.author, documents.now_ms(), version=version)
    return nodes.say(word, dataset, version)


def cancel(documents: ClusterDocuments, nodes: Nodes, dataset: str, version: str) -> list[str]:
    """Withdraw a version that clients never read, or leave a way back where nodes hold it, and wait a moment; the nodes that did not
    confirm it then.

    Raises:
        UsageError: the nodes are not to hold this version.
        VersionActiveError: clients read it.
        NoWayBackError: clients read it before: it is a way back.
    """
    found = _find(documents, dataset, version)
    if found.goal is Goal.ACTIVE:
        raise VersionActiveError(f"clients read {dataset} {version}: `redkv rollback {dataset}` first", dataset=dataset, version=version)
    if found.goal is Goal.RETIRED:
        message = f"{dataset} {version} is not under way: it stays as a way back for as long as retention has it"
        raise NoWayBackError(message, dataset=dataset, version=version)
    desired = documents.change(lambda desired: _without(desired, dataset, version), f"by {documents.author}")
    nodes.wake()
    current = desired.datasets.get(dataset)
    kept = current is not None and current.find(version) is not None
    return Watch(nodes, lambda _: None).until_gone(dataset, version, desired.epoch, AT_REST if kept else ())


def _without(desired: Desired, dataset: str, version: str) -> Desired:
    current = desired.datasets.get(dataset)
    known = current.find(version) if current else None
    if known is not None and known.is_way_back:
        return cancelled(desired, dataset, version)
    return without_version(dataset, version)(desired)


def _find(documents: ClusterDocuments, dataset: str, version: str) -> DesiredVersion:
    current = dataset_of(documents.desired(), dataset)
    found = current.find(version)
    if found is None:
        held = ", ".join(one.version for one in current.versions)
        message = f"{dataset} {version} is not on its way to the nodes: they hold {held}; before that, interrupt its `redkv load`"
        raise UsageError(message, dataset=dataset, version=version)
    return found
