"""Before a version becomes active: the keys of its dataset that are hot are read from it, so that the readers of the first moments find in
memory what they are used to find there, instead of all of them going to files that nobody has read yet.

Rules:
- It affects speed alone. What is read are hot values from the swap on (hotcache.py); the blocks around them are in the block cache.
- Bounded in time, since the activation waits for it, and in bytes by the hot values. What is asked for most is read first.
- RocksDB reads in a thread, which frees the interpreter's lock meanwhile; the loop is held for what a few keys cost.
- What can't be read, or not be understood, is left to the command that asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.format.errors import FormatError, NodeError
from pipeline.format.slots import key_slot
from server.storage.hotcache import HotCache
from server.storage.lookup import META_HEADS, usable
from server.storage.rocks import Database

READ_AHEAD_S_MAX = 0.5  # a rollback is to be done within two seconds, on all nodes within one
KEYS_PER_READ = 128  # some 300 us of the loop, which may have to wait as long for the lock; a hop to a thread costs as much as 40 keys
KEYS_PER_TURN = 1_000  # that are looked at: 100 us, if all are another dataset's
KEYS_MAX = 100_000  # of all datasets: more than can be read in the time; their list takes a millisecond


async def read_ahead(cache: HotCache, prefix: bytes, database: Database, monotonic: Callable[[], float]) -> int:
    """Prepare hot values of the keys under a prefix, as a version's database has them; how many were read. The caller renews the cache by
    them, or forgets them.
    """
    end = monotonic() + READ_AHEAD_S_MAX
    hot, read = cache.hot_keys(KEYS_MAX), 0
    for first in range(0, len(hot), KEYS_PER_TURN):
        keys = [key for key in hot[first : first + KEYS_PER_TURN] if key.startswith(prefix)]
        for place in range(0, len(keys), KEYS_PER_READ):
            some = keys[place : place + KEYS_PER_READ]
            try:
                values = await asyncio.to_thread(database.get_many_aside, [META_HEADS[key_slot(key)] + key for key in some])
            except NodeError:
                return read  # a block that is broken: whoever asks for it is told
            read += len(some)
            if not all(_prepared(cache, key, raw) for key, raw in zip(some, values, strict=True)) or monotonic() >= end:
                return read
        await asyncio.sleep(0)
    return read


def _prepared(cache: HotCache, key: bytes, raw: bytes | None) -> bool:
    try:
        return cache.prepare(key, usable(raw))
    except FormatError:
        return True
