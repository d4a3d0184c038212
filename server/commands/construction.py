"""Big collections that are written as a whole: by RENAME, and by HSET and ZADD where a collection is new or outgrows its packed form.

Rules:
- Few elements are written in the turn of the command, with the meta value that names them.
- Many are written before it, in turns of the event loop, under an element version of their own that nothing names until the last turn. So
  nobody sees half a collection, neither now nor after a crash; what a crash leaves is the sweep's.
- Meanwhile other commands on the key wait. Whether the key may be written is asked again in the last turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from pipeline.format.keys import USER_KEY_BYTES_MAX
from pipeline.format.values import ValueType, encode_big
from server.resp import texts
from server.resp.replies import ReplyError
from server.session import Session
from server.storage.live import Entry, LiveStore
from server.writing import check_writable

CHUNK_ENTRIES_MAX = 1_024  # written at once, in about 2 ms
CHUNK_BYTES_MAX = 256 << 10


@dataclass(frozen=True, slots=True)
class Plan:
    """A collection to be written: its type, how many elements it has and of how many bytes, about, its expiry, and the entries of all
    elements under an element version.
    """

    type: ValueType
    count: int
    size: int
    expiry: int | None
    entries: Callable[[int], Iterator[Entry]]

    def meta(self, version: int) -> bytes:
        """The meta value that names the elements."""
        return encode_big(self.type, version, self.count, self.expiry)


def write_whole(session: Session, key: bytes, slot: int, plan: Plan, reply: bytes) -> bytes | Awaitable[bytes]:
    """Write a collection over whatever the key holds; `reply` when it is written.

    Raises:
        ReplyError: the key is longer than this server stores.
    """
    if len(key) > USER_KEY_BYTES_MAX:
        raise ReplyError(texts.KEY_TOO_LONG)
    if plan.count > CHUNK_ENTRIES_MAX or plan.size > CHUNK_BYTES_MAX:
        return _write_in_turns(session, key, slot, plan, reply)
    version = session.engine.new_element_version()
    session.engine.write(key, slot, plan.meta(version))
    for element, value in plan.entries(version):
        session.engine.live.put(element, value)
    return reply


async def _write_in_turns(session: Session, key: bytes, slot: int, plan: Plan, reply: bytes) -> bytes:
    engine = session.engine
    with session.services.gate.hold([key]), engine.construction(key) as version:
        await write_early(engine.live, plan.entries(version))
        check_writable(session.services, [key])  # a dataset may have been registered since the command began
        engine.write(key, slot, plan.meta(version))
    return reply


async def write_early(live: LiveStore, entries: Iterator[Entry]) -> None:
    """Write entries that nothing names yet, in turns."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry[0]) + len(entry[1])
        if len(chunk) == CHUNK_ENTRIES_MAX or size >= CHUNK_BYTES_MAX:
            live.write_early(chunk)
            chunk, size = [], 0
            await asyncio.sleep(0)
    if chunk:
        live.write_early(chunk)
