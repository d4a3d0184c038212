"""Every trigger comes back from its serialised form as it was."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest
from airflow._shared.module_loading import import_string
from airflow.sdk import Connection
from airflow.triggers.base import BaseTrigger

from dags.provider import triggers

EXAMPLES = [
    triggers.StepTrigger(
        dataset="person",
        version="2026-11-22",
        step="stage",
        epoch=7,
        over_newer=True,
        require="any",
        redkv_conn_id="c",
        poll_s=2.0,
    ),
    triggers.VersionActiveTrigger(dataset="person", version="2026-11-22", redkv_conn_id="c", poll_s=3.0),
    triggers.PartitionTrigger(table="features.person", partition="ds=2026-11-22", redkv_conn_id="c", poll_s=4.0),
]


def test_every_trigger_has_an_example_here() -> None:
    public = {
        one
        for name, one in vars(triggers).items()
        if isinstance(one, type) and issubclass(one, BaseTrigger) and one is not BaseTrigger and not name.startswith("_")
    }
    assert {type(one) for one in EXAMPLES} == public


@pytest.mark.parametrize("trigger", EXAMPLES, ids=lambda one: type(one).__name__)
def test_it_comes_back_as_it_was(trigger: BaseTrigger) -> None:
    path, arguments = trigger.serialize()
    again = import_string(path)(**json.loads(json.dumps(arguments)))
    assert type(again) is type(trigger)
    assert again.serialize() == (path, arguments)
    own = {name: value for name, value in vars(trigger).items() if name in arguments}
    assert own == arguments, "no argument is left out, none is kept under another name"


class _Slow(triggers.VersionActiveTrigger):
    """Opens something, and takes its time."""

    def __init__(self) -> None:
        super().__init__(dataset="person", version="2026-11-22", redkv_conn_id="redkv_default")
        self.begun, self.go_on = Event(), Event()
        self.told: list[str] = []

    def open(self, connection: Connection, stack: ExitStack) -> triggers.Look:
        self.begun.set()
        self.go_on.wait()
        self.told.append("opened")
        stack.callback(self.told.append, "closed")
        return dict[str, Any]


def test_a_wait_that_is_cancelled_while_it_opens_closes_what_it_opened() -> None:
    trigger = _Slow()

    async def cancelled() -> None:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.to_thread(trigger.begun.wait)
        waiting.cancel()
        asyncio.get_running_loop().call_soon(trigger.go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    assert trigger.told == ["opened", "closed"]
