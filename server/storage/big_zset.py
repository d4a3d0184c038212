"""Places in big sorted sets, in turns of the event loop: the rank of a member, the members at ranks, how many a range holds."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice

from pipeline.format.keys import Kind, sortable_score
from server.storage.big import CHECKPOINT_STEP, STEPS_PER_TURN, BigCollection, Entry, ranked


async def rank_of(big: BigCollection, member: bytes, score: float) -> int:
    """The rank of a member that is there: from the last checkpoint before it on, and from it to the end, side by side, until one of the
    walks is through.
    """
    place = sortable_score(score) + member
    known = big.checkpoints()
    at = bisect_right(known, place)
    before = at * CHECKPOINT_STEP  # the rank of the next entry of the first walk
    upwards = big.walk(Kind.ZSET_RANK, known[at - 1] if at else b"")
    rest = big.walk(Kind.ZSET_RANK, place)
    after = 0
    while True:
        for detail, _ in islice(upwards, CHECKPOINT_STEP):
            if detail == place:
                return before
            if before == (len(known) + 1) * CHECKPOINT_STEP:
                known.append(detail)
            before += 1
        after += (passed := _passed(rest, CHECKPOINT_STEP))
        if passed < CHECKPOINT_STEP:
            return big.count - after
        await asyncio.sleep(0)


async def counted(entries: Iterator[Entry]) -> int:
    """How many there are."""
    number = 0
    while (passed := _passed(entries, STEPS_PER_TURN)) == STEPS_PER_TURN:
        number += passed
        await asyncio.sleep(0)
    return number + passed


async def at_ranks(big: BigCollection, ranks: Sequence[int]) -> dict[int, tuple[bytes, float]]:
    """Member and score at each of some ranks: one walk, from the end that is nearer to all of them."""
    first, last = min(ranks), max(ranks)
    if first == last:
        return {first: ranked((await big.between(first, first + 1))[0])}
    backwards = big.count - first < last + 1
    wanted = set(ranks)
    found = {}
    places = range(big.count - 1, first - 1, -1) if backwards else range(last + 1)
    for step, (rank, entry) in enumerate(zip(places, big.walk(Kind.ZSET_RANK, backwards=backwards), strict=False)):
        if rank in wanted:
            found[rank] = ranked(entry)
        if step % STEPS_PER_TURN == STEPS_PER_TURN - 1:
            await asyncio.sleep(0)
    return found


def _passed(entries: Iterator[Entry], most: int) -> int:
    return sum(1 for _ in islice(entries, most))
