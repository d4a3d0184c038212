"""Some fields of a hash: HSCAN page by page, HRANDFIELD at random."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext

from pipeline.format.values import HashValue, bulk, decode_value
from server.commands.arguments import INT64_MAX, INT64_MIN
from server.commands.arguments import integer as integer_of
from server.commands.hashes import BIG, read_hash
from server.commands.registry import READS_KEY, Family
from server.commands.scanning import page_reply, parse_cursor, parse_page, scan_big, scan_live
from server.resp import texts
from server.resp.replies import EMPTY_ARRAY, NULL, ReplyError, array
from server.session import Session
from server.storage import packed, packed_hash
from server.storage.big import STEPS_PER_TURN, BigCollection, Entry
from server.storage.picks import DRAW_STEPS

FAMILY = Family("hash", "hash")

REPLY_BYTES_MAX = 1 << 30  # of repeated fields, where client-output-buffer-limit sets no limit: the default of that


@FAMILY.command("hscan", -3, "readonly", READS_KEY, tips="nondeterministic_output")
def hscan(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """Fields and values, page by page."""
    parse_cursor(words[2])
    raw = read_hash(session, words[1], slot)
    if raw is None:
        return page_reply(0, [])  # Redis looks at the options only then
    page = parse_page(words)
    if raw[1] & BIG:
        big = session.big(words[1], slot, raw)
        if big.live:
            return scan_live(session.services.cursors, big, big.listing, page, lambda entry: entry)
        return scan_big(big, page, lambda entry: entry)
    value = decode_value(raw)
    pairs = value.pairs if isinstance(value, HashValue) else ()
    return page_reply(0, [pair for pair in pairs if page.matches(pair[0])])


@FAMILY.command("hrandfield", -2, "readonly", READS_KEY, tips="nondeterministic_output")
def hrandfield(session: Session, words: list[bytes], slot: int) -> bytes | Awaitable[bytes]:
    """One or more random fields of a hash; with a negative count, each may come several times."""
    key = words[1]
    if len(words) == 2:
        raw = read_hash(session, key, slot)
        if raw is None:
            return NULL[session.resp]
        if raw[1] & BIG:
            return _one_of_big(session, key, session.big(key, slot, raw))
        return packed_hash.first_bulk(packed_hash.pair_bulks(raw, session.services.picks.random.randrange(packed.count(raw))))
    count, with_values = _options(words)
    raw = read_hash(session, key, slot)
    if raw is None or not count:
        return EMPTY_ARRAY
    if raw[1] & BIG:
        return _some_of_big(session, key, session.big(key, slot, raw), count, with_values=with_values)
    return _some_of_packed(session, raw, count, with_values=with_values)


def _options(words: list[bytes]) -> tuple[int, bool]:
    count = integer_of(words[2])
    if count == INT64_MIN:
        raise ReplyError(texts.OUT_OF_SYMMETRIC_RANGE)
    if len(words) == 3:
        return count, False
    if len(words) > 4 or words[3].lower() != b"withvalues":
        raise ReplyError(texts.SYNTAX)
    if abs(count) > INT64_MAX // 2:
        raise ReplyError(texts.OUT_OF_RANGE)
    return count, True


def _some_of_packed(session: Session, raw: bytes, count: int, *, with_values: bool) -> bytes | Awaitable[bytes]:
    random, held = session.services.picks.random, packed.count(raw)
    places: Sequence[int] = range(held)
    if 0 < count < held:
        places = sorted(random.sample(places, count))
    elif -held <= count < 0:
        places = random.choices(places, k=-count)
    shown = [packed_hash.pair_bulks(raw, place) for place in places]
    if not with_values:
        shown = [packed_hash.first_bulk(pair) for pair in shown]
    elif session.resp == 3:
        shown = [array(2) + pair for pair in shown]
    if count < -held:
        return _repeated(session, shown, -count, with_values=with_values)
    return _header(session, len(shown), with_values=with_values) + b"".join(shown)


async def _one_of_big(session: Session, key: bytes, big: BigCollection) -> bytes:
    [entry] = await _picked(session, key, big, -1)
    return bulk(entry[0])


async def _some_of_big(session: Session, key: bytes, big: BigCollection, count: int, *, with_values: bool) -> bytes:
    entries = await _picked(session, key, big, count)
    if not with_values:
        shown = [bulk(field) for field, _ in entries]
    else:
        prefix = array(2) if session.resp == 3 else b""
        shown = [prefix + bulk(field) + bulk(value) for field, value in entries]
    if count < -len(shown):
        return await _repeated(session, shown, -count, with_values=with_values)
    return _header(session, len(shown), with_values=with_values) + b"".join(shown)


async def _picked(session: Session, key: bytes, big: BigCollection, count: int) -> list[Entry]:
    """So many fields, each at most once; with a negative count, so many draws, or all fields if there are fewer."""
    picks = session.services.picks
    if abs(count) * DRAW_STEPS < big.count and picks.ready(big):
        drawn = await _drawn(session, key, big, count)
        if drawn is not None:
            return drawn
    places: Sequence[int] = range(big.count)
    if 0 < count < big.count:
        places = picks.random.sample(places, count)
    elif -big.count <= count < 0:
        places = picks.random.choices(places, k=-count)
    found = await picks.walked(big, places if isinstance(places, range) else frozenset(places))
    return [found[place] for place in places]


async def _drawn(session: Session, key: bytes, big: BigCollection, count: int) -> list[Entry] | None:
    drawn: list[Entry] = []
    fields: set[bytes] = set()
    with big, session.services.gate.hold([key]) if big.live else nullcontext():
        while len(drawn) < abs(count):
            entry = session.services.picks.draw(big) if session.services.picks.ready(big) else None
            if entry is None:
                return None
            if count < 0 or entry[0] not in fields:
                fields.add(entry[0])
                drawn.append(entry)
            if len(drawn) < abs(count):
                await asyncio.sleep(0)
    return drawn


async def _repeated(session: Session, shown: list[bytes], count: int, *, with_values: bool) -> bytes:
    """`count` draws of what is shown, in turns.

    Raises:
        ReplyError: they would take more memory than a client may.
    """
    room = session.services.config.output_hard_bytes or REPLY_BYTES_MAX
    if count * len(min(shown, key=len)) > room:
        raise ReplyError(texts.REPLY_TOO_LONG)
    parts = [_header(session, count, with_values=with_values)]
    left = count
    while left:
        part = b"".join(session.services.picks.random.choices(shown, k=min(left, STEPS_PER_TURN)))
        room -= len(part)
        if room < 0:
            raise ReplyError(texts.REPLY_TOO_LONG)
        parts.append(part)
        left -= min(left, STEPS_PER_TURN)
        if left:
            await asyncio.sleep(0)
    return b"".join(parts)


def _header(session: Session, count: int, *, with_values: bool) -> bytes:
    return array(2 * count if with_values and session.resp == 2 else count)
