"""The keys of one slot: live ones that have not expired, and those of the active versions, as they were when the walk began.

Rules:
- A slot is one range of every database, so only its own keys are walked. That is the cost: one step per key of the slot.
- Nothing holds the loop for more than STEPS_PER_TURN keys. Live keys come from a snapshot of the first turn, versions are held open.
- A dataset whose active version can't be read, or lacks the slot, is an error, not a dataset without keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from itertools import chain, islice

from pipeline.format.values import expiry_ms
from server.resp.replies import ReplyError
from server.resp.texts import slot_not_loaded
from server.storage.engine import Engine
from server.storage.keyspace import Source
from server.storage.live import Entry
from server.storage.lookup import META_HEADS
from server.storage.versions import Versions

STEPS_PER_TURN = 1_024  # about a millisecond of the event loop when blocks are cached


async def keys_of(engine: Engine, versions: Versions, slot: int) -> AsyncGenerator[bytes]:
    """User keys of a slot, in no order that means anything. To be closed (`aclosing`) by whoever does not walk to the end.

    Raises:
        ReplyError: a dataset's keys of it can't be read.
    """
    with ExitStack() as held:
        sources = [held.enter_context(one) for one in _sources(engine, versions, slot)]
        live, *others = (_entries(one, slot) for one in sources)
        first = list(islice(live, 1))  # the snapshot is of this turn
        now_ms = engine.clock()
        for step, (key, value) in enumerate(chain(first, live, *others), start=1):
            expiry = expiry_ms(value)
            if expiry is None or expiry > now_ms:
                yield key
            if step % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)


def _sources(engine: Engine, versions: Versions, slot: int) -> list[Source]:
    """The live database first."""
    sources = [Source("", engine.live, None, versions.unpin)]
    for dataset in engine.index.ordered:
        if dataset.active is None:
            dataset.check()
        elif slot in dataset.lacking:
            raise ReplyError(slot_not_loaded(dataset.pointer.dataset, dataset.active.identity.version, slot))
        else:
            sources.append(Source(dataset.pointer.dataset, engine.live, dataset.active, versions.unpin))
    return sources


def _entries(source: Source, slot: int) -> Iterator[Entry]:
    """User keys and meta values."""
    head = META_HEADS[slot]
    for key, value in source.entries_from(head):
        if not key.startswith(head):
            return
        yield key[len(head) :], value
