"""Draws docs/states.md from the transition table: `python -m pipeline.load.diagram > docs/states.md`."""

from __future__ import annotations

import sys

from pipeline.load.states import TRANSITIONS, Event, State

_INTRO = """# States of a version on a node

Drawn from `pipeline/load/states.py` by `python -m pipeline.load.diagram`; a test checks that it is current.

```mermaid
stateDiagram-v2
    [*] --> absent
"""
_OUTRO = """```

Not drawn: `fail` leads from every state to `failed`; `remove` from `staging`, `staged`, `ingesting`, `ready` and `retired` to `absent`,
when work was stopped there, or what lies on the disk is not what is needed any more.
"""


def diagram() -> str:
    """The whole document."""
    steps = [(state, event, after) for (state, event), after in TRANSITIONS.items() if event not in {Event.FAIL, Event.REMOVE}]
    order = list(State)
    steps.sort(key=lambda step: (order.index(step[0]), order.index(step[2])))
    return _INTRO + "".join(f"    {state} --> {after}: {event}\n" for state, event, after in steps) + _OUTRO


if __name__ == "__main__":
    sys.stdout.write(diagram())
