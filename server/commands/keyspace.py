"""The keyspace as a whole: SCAN, KEYS, RANDOMKEY, DBSIZE, over live keys and those of versions alike (server/storage/keyspace.py).

Rules:
- Keys that have expired are left out; a connection that is redirected sees the slots that this shard serves.
- SCAN examines COUNT keys per call, wanted or not. A key that is there from the first call to the last comes at least once, whatever is
  written meanwhile, and whichever versions are activated.
- What takes long does so in turns of the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import ExitStack

from pipeline.format.slots import SLOT_COUNT
from pipeline.format.values import ValueType, expiry_ms
from server.commands.registry import NO_KEYS, Family
from server.commands.scanning import Page, glob, keys_reply, parse_page
from server.resp.replies import NULL, array, bulk, integer
from server.session import Session
from server.storage.big import STEPS_PER_TURN
from server.storage.keyspace import ALL_SLOTS, Keyspace, MetaWalk, Source, encode_position, parse_position, slot_of
from server.storage.live import Entry, LiveStore
from server.storage.lookup import META_HEADS

FAMILY = Family("generic", "keyspace")

LIVE_COUNTED_MAX = 20_000  # live keys that DBSIZE counts one by one: about 20 ms, in turns. More are estimated
RANDOM_CHOICE_MAX = 128  # keys of one slot that RANDOMKEY chooses among: slots of a spread keyspace hold no more, up to two million keys

_EVERYWHERE = "request_policy:all_shards"


@FAMILY.command("scan", -2, "readonly", NO_KEYS, tips="nondeterministic_output request_policy:special")
def scan(session: Session, words: list[bytes], _slot: int) -> bytes | Awaitable[bytes]:
    """Keys, page by page."""
    return _page(session, parse_page(words, cursor_at=1, typed=True))


@FAMILY.command("keys", 2, "readonly", NO_KEYS, categories="dangerous", tips=f"{_EVERYWHERE} nondeterministic_output_order")
async def keys(session: Session, words: list[bytes], _slot: int) -> bytes:
    """All keys that a pattern matches."""
    pattern, steps = glob(words[1]), 0
    bulks: list[bytes] = []
    for source in _keyspace(session).all():
        with source:
            walk = MetaWalk(source.entries_from, _wanted_slots(session, source))
            while walk.position is not None:
                entry = walk.step()
                if entry is not None and pattern.fullmatch(entry[0]) and not _expired(session, entry):
                    bulks.append(bulk(entry[0]))
                steps += 1
                if steps % STEPS_PER_TURN == 0:
                    await asyncio.sleep(0)
    return array(len(bulks)) + b"".join(bulks)


@FAMILY.command("randomkey", 1, "readonly", NO_KEYS, tips=f"{_EVERYWHERE} nondeterministic_output")
async def randomkey(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """A key, chosen at random: by the number of keys which source, then which slot, then which of its first keys."""
    with ExitStack() as held:
        sources = [held.enter_context(source) for source in _keyspace(session).all()]
        weights = [max(_rough_count(source), 1) for source in sources]
        while sources:
            place = random.choices(range(len(sources)), weights)[0]
            weights.pop(place)
            found = await _random_key_of(session, sources.pop(place))
            if found is not None:
                return bulk(found)
    return NULL[session.resp]


@FAMILY.command("dbsize", 1, "readonly fast", NO_KEYS, tips=f"{_EVERYWHERE} response_policy:agg_sum")
async def dbsize(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """How many keys there are. Those that have expired count until they are reclaimed, as in Redis."""
    keyspace = _keyspace(session)
    of_versions = sum(source.version.identity.keys for source in keyspace.all() if source.version is not None)
    return integer(of_versions + await _live_count(session.engine.live, _wanted_slots(session, keyspace.live)))


async def _page(session: Session, page: Page) -> bytes:
    keyspace, left = _keyspace(session), page.count
    name, place = parse_position(session.services.cursors.find(page.cursor) or b"")
    source = keyspace.from_name(name)
    if source is not None and source.name != name:
        place = META_HEADS[0]
    found: list[bytes] = []
    while source is not None:
        with source:
            walk = MetaWalk(source.entries_from, _wanted_slots(session, source), place)
            while walk.position is not None and left:
                entry = walk.step()
                if entry is not None and _asked_for(page, entry) and not _expired(session, entry):
                    found.append(entry[0])
                left -= 1
                if left % STEPS_PER_TURN == 0:
                    await asyncio.sleep(0)
        if walk.position is not None:
            return keys_reply(session.services.cursors.keep(encode_position(source, walk.position)), found)
        source, place = keyspace.after(source), META_HEADS[0]
    return keys_reply(0, found)


async def _random_key_of(session: Session, source: Source) -> bytes | None:
    """From a slot chosen at random, or the first after it that has a key (the first slots come after the last one)."""
    wanted = _wanted_slots(session, source)
    start = random.randrange(SLOT_COUNT)
    steps = 0
    for part in (bytes(start) + wanted[start:], wanted[:start] + bytes(SLOT_COUNT - start)):
        walk = MetaWalk(source.entries_from, part)
        slot, choice = -1, list[bytes]()
        while walk.position is not None:
            entry = walk.step()
            steps += 1
            if steps % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)
            at = slot_of(walk.position or b"")
            if choice and (at != slot or len(choice) == RANDOM_CHOICE_MAX):
                break
            if entry is not None and not _expired(session, entry):
                slot = at
                choice.append(entry[0])
        if choice:
            return random.choice(choice)
    return None


async def _live_count(live: LiveStore, wanted: bytes | bytearray) -> int:
    """Exact up to LIVE_COUNTED_MAX; beyond, as many more as slots are left, and never more than RocksDB says that there are entries."""
    walk = MetaWalk(lambda key: ((one, b"") for one in live.keys_from(key)), wanted)
    steps = counted = 0
    while walk.position is not None:
        counted += walk.step() is not None
        steps += 1
        if counted > LIVE_COUNTED_MAX:
            break
        if steps % STEPS_PER_TURN == 0:
            await asyncio.sleep(0)
    if walk.position is None:
        return counted
    entries = live.database.keys_estimate()
    seen_slots = wanted.count(1, 0, slot_of(walk.position))
    spread = counted * wanted.count(1) // seen_slots if seen_slots else entries
    return max(counted, min(spread, entries))


def _rough_count(source: Source) -> int:
    return source.live.database.keys_estimate() if source.version is None else source.version.identity.keys


def _keyspace(session: Session) -> Keyspace:
    services = session.services
    return Keyspace(session.engine.live, session.engine.index, session.pins, services.versions.unpin)


def _wanted_slots(session: Session, source: Source) -> bytes | bytearray:
    """A replica has the versions of its primary's slots, and no live keys."""
    cluster = session.services.cluster
    if not session.redirected:
        return ALL_SLOTS
    return cluster.copied if cluster.primary is not None and source.version is not None else cluster.owned


def _asked_for(page: Page, entry: Entry) -> bool:
    return page.matches(entry[0]) and (page.type is None or _TYPES.get(entry[1][0]) == page.type)


def _expired(session: Session, entry: Entry) -> bool:
    moment = expiry_ms(entry[1])
    return moment is not None and moment <= session.engine.clock()


_TYPES = {int(kind): kind.redis_name.encode() for kind in ValueType}
