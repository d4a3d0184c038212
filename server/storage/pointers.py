"""Which version of which dataset clients read: notes of the shard's own in its live database.

::

    key    := local_key("dataset/" name)      (pipeline/format/keys.py)
    value  := DatasetPointer as JSON

Every change is one write, which is on the disk when the call returns: what was acknowledged survives a power cut. The disk is waited for
in a thread: it may be busy with the very files of the next version.
"""

from __future__ import annotations

import asyncio

from pipeline.format.keys import local_key
from pipeline.format.records import VersionedRecord
from server.storage.rocks import Database

_PREFIX = local_key(b"dataset/")


class DatasetPointer(VersionedRecord):
    """A registered dataset; `active` and `build_id` are None before its first activation, `expected` until clients shall read a version."""

    dataset: str
    prefix: str
    active: str | None = None
    build_id: str | None = None
    expected: str | None = None


def load_pointers(live: Database) -> list[DatasetPointer]:
    """All registered datasets, by name."""
    pointers = []
    for key, value in live.entries_from(_PREFIX):
        if not key.startswith(_PREFIX):
            break
        pointers.append(DatasetPointer.from_json(value, f"pointer {key!r} of {live.path}"))
    return pointers


async def save_pointer(live: Database, pointer: DatasetPointer) -> None:
    """Write a dataset's pointer durably."""
    live.put(_PREFIX + pointer.dataset.encode(), pointer.to_json())
    await asyncio.to_thread(live.sync)


async def remove_pointer(live: Database, dataset: str) -> None:
    """Forget a dataset durably."""
    live.delete(_PREFIX + dataset.encode())
    await asyncio.to_thread(live.sync)
