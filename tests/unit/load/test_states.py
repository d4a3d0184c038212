from pathlib import Path

import pytest

from pipeline.format.errors import IllegalTransitionError
from pipeline.load.diagram import diagram
from pipeline.load.states import TRANSITIONS, Event, State, after


def test_the_way_of_a_version_is_legal_from_absent_to_active_and_back() -> None:
    state = State.ABSENT
    for event in (
        Event.STAGE,
        Event.STAGE_DONE,
        Event.INGEST,
        Event.INGEST_DONE,
        Event.ACTIVATE,
        Event.RETIRE,
        Event.ACTIVATE,
        Event.RETIRE,
        Event.REMOVE,
    ):
        state = after(state, event)
    assert state is State.ABSENT


def test_whatever_is_not_in_the_table_is_refused_by_name() -> None:
    for state in State:
        for event in Event:
            if (state, event) not in TRANSITIONS:
                with pytest.raises(IllegalTransitionError, match=str(event)) as refused:
                    after(state, event)
                assert refused.value.fields == {"state": str(state), "event": str(event)}


def test_an_active_version_is_never_removed() -> None:
    assert (State.ACTIVE, Event.REMOVE) not in TRANSITIONS


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert set(TRANSITIONS.values()) == set(State)


def test_the_diagram_in_the_docs_is_current() -> None:
    assert Path("docs/states.md").read_text(encoding="utf-8") == diagram()
