"""A listener of loads that remembers, and does things at given moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.load.progress import LoadEvent, NodesSeen, Noted, StepBegan


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
