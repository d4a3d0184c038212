"""What the coordinator says to the nodes and hears from them, over HTTP, all nodes at once.

A node that does not answer is an answer of its own, a `SidecarUnavailableError`; it never holds the others up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import httpx

from pipeline.format.errors import FormatError, SidecarUnavailableError
from pipeline.format.topology import Node, Topology
from pipeline.load.status import NodeStatus

ANSWER_WAIT_S = 5.0  # a status is made from memory: a sidecar that needs longer is in trouble
ASKED_AT_ONCE_MAX = 32

Answer = NodeStatus | SidecarUnavailableError
T = TypeVar("T")


class Nodes:
    """All sidecars of a cluster. A context manager: it holds connections and threads."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._client = httpx.Client(timeout=ANSWER_WAIT_S, trust_env=False)
        self._pool = ThreadPoolExecutor(min(ASKED_AT_ONCE_MAX, max(1, len(topology.nodes))), thread_name_prefix="nodes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)
        self._client.close()

    def statuses(self) -> dict[str, Answer]:
        """What every node says, by node name."""
        return self._ask(self._status)

    def wake(self) -> None:
        """Tell every node that the desired state changed. One that misses it finds out by its own poll."""
        self._ask(self._wake)

    def _ask(self, question: Callable[[Node], T]) -> dict[str, T]:
        answers = self._pool.map(question, self.topology.nodes)
        return {node.name: answer for node, answer in zip(self.topology.nodes, answers, strict=True)}

    def _status(self, node: Node) -> Answer:
        try:
            answer = self._client.get(f"{node.sidecar_url}/v1/status").raise_for_status()
            return NodeStatus.from_json(answer.content, f"the status of {node.name}")
        except (httpx.HTTPError, FormatError) as failed:
            return _unavailable(node, failed)

    def _wake(self, node: Node) -> SidecarUnavailableError | None:
        try:
            self._client.post(f"{node.sidecar_url}/v1/wake").raise_for_status()
        except httpx.HTTPError as failed:
            return _unavailable(node, failed)
        return None


def _unavailable(node: Node, failed: Exception) -> SidecarUnavailableError:
    message = f"the sidecar of {node.name} at {node.sidecar_url} does not answer ({failed or type(failed).__name__}): look whether it runs"
    return SidecarUnavailableError(message, node=node.name, url=node.sidecar_url)
