"""Telling progress from repetition, per node: pure, the caller brings the time.

Rules:
- Whatever goes beyond the best that a node reached (state, bytes, files) is progress.
- So is anything else that changes on the node, its work on other versions included: this one may wait for its turn.
- But a node that failed REPEATS_MAX times since it last went beyond its best only repeats itself: from then on its best alone counts.
  A full disk, tried again every few seconds, would otherwise look busy for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.format.errors import SidecarUnavailableError
from pipeline.load.nodes import Answer
from pipeline.load.progress import RANK
from pipeline.load.states import State

REPEATS_MAX = 3  # one failure can be chance, and what is retried may need a while to come as far again


@dataclass(slots=True)
class _Node:
    moved_s: float
    reached: tuple[int, int, int] = (-1, -1, -1)
    mark: object = None
    failing: bool = False
    failures: int = 0


class Movement:
    """All nodes of one wait for one version."""

    def __init__(self, dataset: str, version: str, now_s: float) -> None:
        self._dataset, self._version = dataset, version
        self._began_s = now_s
        self._nodes: dict[str, _Node] = {}

    def quiet_s(self, name: str, answer: Answer, now_s: float) -> float:
        """Take a node's answer; the seconds since it last made progress."""
        node = self._nodes.setdefault(name, _Node(self._began_s))
        own = None if isinstance(answer, SidecarUnavailableError) else answer.find(self._dataset, self._version)
        failing = isinstance(answer, SidecarUnavailableError) or (own is not None and own.state is State.FAILED)
        node.failures += failing and not node.failing
        node.failing = failing
        reached = (RANK[own.state], own.bytes_done, own.files_done) if own and not failing else (-1, -1, -1)
        mark = _mark(answer)
        if reached > node.reached:
            node.reached, node.failures, node.moved_s = reached, 0, now_s
        elif mark != node.mark and node.failures < REPEATS_MAX:
            node.moved_s = now_s
        node.mark = mark
        return now_s - node.moved_s


def _mark(answer: Answer) -> object:
    """What differs as soon as anything moves on the node."""
    if isinstance(answer, SidecarUnavailableError):
        return None
    return [
        (name, one.version, one.state, one.step, one.files_done, one.bytes_done)
        for name, versions in answer.datasets.items()
        for one in versions
    ]
