"""RENAME and RENAMENX: a key's value, its expiry with it, under another name.

A big collection's elements stand under its name, so they are written anew: in turns, under an element version that the meta value names
when all are there. Meanwhile other commands on both keys wait. The old elements are garbage, which the sweep removes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from itertools import chain, islice

from pipeline.format.keys import USER_KEY_BYTES_MAX, element_head
from pipeline.format.slots import key_slot
from pipeline.format.values import Flag, encode_big, expiry_ms
from server.commands.construction import write_early
from server.commands.registry import Family, Keys
from server.resp import texts
from server.resp.replies import OK, ReplyError, integer
from server.session import Session
from server.storage.heads import ELEMENTS_OF
from server.storage.live import Entry
from server.writing import check_writable

FAMILY = Family("generic", "keyspace")

Place = tuple[bytes, int]
"""Key and slot."""

_ACCESS = "RW access delete"


@FAMILY.command("rename", 3, "write", Keys(1, 2, 1, _ACCESS, last_access="OW update"))
def rename(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Give a key another name; what has that name is replaced."""
    return _rename(session, words, slot, if_absent=False)


@FAMILY.command("renamenx", 3, "write fast", Keys(1, 2, 1, _ACCESS, last_access="OW insert"))
def renamenx(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Give a key another name, if no key has that; whether it was given."""
    return _rename(session, words, slot, if_absent=True)


def _rename(session: Session, words: list[bytes], slot: int, *, if_absent: bool) -> bytes | Awaitable[bytes]:
    engine, key = session.engine, words[1]
    new = words[2], key_slot(words[2])
    raw = engine.read(key, slot)
    if raw is None:
        raise ReplyError(texts.NO_SUCH_KEY)
    if key == new[0]:
        return integer(0) if if_absent else OK
    if if_absent and engine.read(*new) is not None:
        return integer(0)
    if len(new[0]) > USER_KEY_BYTES_MAX:
        raise ReplyError(texts.KEY_TOO_LONG)
    reply = integer(1) if if_absent else OK
    if raw[1] & Flag.BIG:
        return _rename_big(session, (key, slot), raw, new, reply)
    _move(session, (key, slot), new, raw)
    return reply


async def _rename_big(session: Session, old: Place, raw: bytes, new: Place, reply: bytes) -> bytes:
    engine, big = session.engine, session.big(*old, raw)
    with session.services.gate.hold((old[0], new[0])), engine.construction(new[0]) as version:
        walks = [(element_head(kind, new[0], version, new[1]), _begun(big.walk(kind))) for kind in ELEMENTS_OF[big.type]]
        await write_early(engine.live, ((head + detail, value) for head, entries in walks for detail, value in entries))
        check_writable(session.services, (old[0], new[0]))  # a dataset may have been registered since the command began
        _move(session, old, new, encode_big(big.type, version, big.count, expiry_ms(raw)))
    return reply


def _begun(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same entries, seen as they are now."""
    return chain(list(islice(entries, 1)), entries)


def _move(session: Session, old: Place, new: Place, raw: bytes) -> None:
    engine = session.engine
    engine.delete(*new)  # tells the sweep of a big collection that is replaced
    engine.write(*new, raw)
    engine.delete(*old)
