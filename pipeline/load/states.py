"""The states of one version on one node, and the steps between them.

Everything that affects the state machine lives here: TRANSITIONS is the whole of it, docs/states.md is drawn from it.
PAUSED is not a state, and neither is CANCELLED: the first keeps a version where it stands, the second is a failure of that name. A version
that nobody wants any more is forgotten, from wherever it stands.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.format.errors import IllegalTransitionError


class State(StrEnum):
    """How far one version has come on one node."""

    ABSENT = "absent"
    STAGING = "staging"
    STAGED = "staged"
    INGESTING = "ingesting"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


class Event(StrEnum):
    """What moves a version on."""

    STAGE = "stage"
    STAGE_DONE = "stage done"
    INGEST = "ingest"
    INGEST_DONE = "ingest done"
    ACTIVATE = "activate"
    RETIRE = "retire"
    FAIL = "fail"
    RETRY = "retry"
    REMOVE = "remove"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.ABSENT, Event.STAGE): State.STAGING,
    (State.STAGING, Event.STAGE_DONE): State.STAGED,
    (State.STAGED, Event.INGEST): State.INGESTING,
    (State.INGESTING, Event.INGEST_DONE): State.READY,
    (State.READY, Event.ACTIVATE): State.ACTIVE,
    (State.ACTIVE, Event.RETIRE): State.RETIRED,
    (State.READY, Event.RETIRE): State.RETIRED,
    (State.RETIRED, Event.ACTIVATE): State.ACTIVE,
    (State.FAILED, Event.RETRY): State.ABSENT,
    **{
        (state, Event.FAIL): State.FAILED
        for state in (State.ABSENT, State.STAGING, State.STAGED, State.INGESTING, State.READY, State.ACTIVE, State.RETIRED)
    },
    **{(state, Event.REMOVE): State.ABSENT for state in (State.STAGING, State.STAGED, State.INGESTING, State.READY, State.RETIRED)},
}


def after(state: State, event: Event) -> State:
    """The state that `event` leads to.

    Raises:
        IllegalTransitionError: the table has no such step.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        message = f"a version that is {state} can't take the step '{event}'"
        raise IllegalTransitionError(message, state=str(state), event=str(event)) from None
