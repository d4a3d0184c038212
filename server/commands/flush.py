"""FLUSHALL and FLUSHDB: all live keys go, in one write, whatever their number; their files go afterwards, off the event loop.

Rules:
- A shard that serves a version of a dataset refuses: its keys are read-only for clients, and half a FLUSHALL is none. So does one that
  refuses all writes.
- ASYNC and SYNC are the same: when the reply leaves, no key is there, and its space is given back in the background.
- Commands that change keys over several turns are waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable

from server.commands.registry import NO_KEYS, Family
from server.resp import texts
from server.resp.replies import OK, ReplyError
from server.session import Session
from server.writing import check_writable

FAMILY = Family("server", "keyspace dangerous")

_MODES = frozenset({b"async", b"sync"})
_TIPS = "request_policy:all_shards response_policy:all_succeeded"


@FAMILY.command("flushall", -1, "write", NO_KEYS, tips=_TIPS)
def flushall(session: Session, words: list[bytes], _slot: int) -> bytes | Awaitable[bytes]:
    """Remove all keys."""
    if len(words) > 1 and (len(words) > 2 or words[1].lower() not in _MODES):
        raise ReplyError(texts.SYNTAX)
    gate = session.services.gate
    return _when_free(session) if gate.busy else _flush(session)


FAMILY.add("flushdb", flushall, -1, "write", NO_KEYS, tips=_TIPS)


async def _when_free(session: Session) -> bytes:
    await session.services.gate.all_free()
    return _flush(session)


def _flush(session: Session) -> bytes:
    services = session.services
    check_writable(services, ())
    served = sorted(name for name, one in services.engine.index.by_name.items() if one.pointer.active is not None)
    if served:
        raise ReplyError(texts.read_only_datasets(session.last_command.upper(), served))
    session.engine.clear()
    services.upkeep.compact()
    return OK
