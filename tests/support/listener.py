"""A listener of loads that remembers, and does things at given moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pipeline.load.progress import RANK, LoadEvent, NodesSeen, Noted, StepBegan
from pipeline.load.states import State
from pipeline.load.status import VersionStatus


@dataclass
class Recorder:
    """Remembers steps and notes. `on_step` acts when a step begins; then `on_nodes` once, at the first look at the nodes after that."""

    on_step: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    on_nodes: Callable[[], object] | None = None
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _armed: bool = False

    def __call__(self, event: LoadEvent) -> None:
        match event:
            case StepBegan(step=step, message=message):
                self.steps.append(f"{step}: {message}")
                if step in self.on_step:
                    self.on_step[step]()
                    self._armed = True
            case NodesSeen() if self._armed and self.on_nodes is not None:
                self._armed = False
                self.on_nodes()
            case Noted(message=message):
                self.notes.append(message)


@dataclass
class OthersClock:
    """Listener and clock of a load: its time begins when these nodes are in that state, so that it is never they who are too slow."""

    nodes: Collection[str]
    state: State
    _began_s: float | None = None

    def __call__(self, event: LoadEvent) -> None:
        if self._began_s is None and isinstance(event, NodesSeen) and all(self._is_there(event.nodes.get(name)) for name in self.nodes):
            self._began_s = time.monotonic()

    def seconds(self) -> float:
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def _is_there(self, one: object) -> bool:
        return isinstance(one, VersionStatus) and RANK[one.state] >= RANK[self.state]
