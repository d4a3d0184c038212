"""Takes away live keys that have expired. Reads never show them: this gives their space back.

Rules:
- What reads found expired goes first; a walk over all keys, round and round, finds the rest.
- A key is removed only if it has expired in that very turn of the loop. One that a command is changing is left for the next round.
- A step is bounded in keys, bytes and time. The walk is slow, and ten times as fast while every tenth key or more has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from pipeline.format.slots import key_slot
from pipeline.format.values import expiry_ms
from server.storage.engine import Engine
from server.storage.keyspace import ALL_SLOTS, MetaWalk
from server.storage.lookup import META_HEADS

KEYS_PER_STEP_MAX = 256
BYTES_PER_STEP_MAX = 256 << 10  # of values, which are read to see when they expire
STEP_S_MAX = 0.002
KEYS_PER_SECOND = 2_560  # about 1 % of the loop; a million keys are looked at in seven minutes
KEYS_PER_SECOND_BUSY = 25_600
BUSY_SHARE = 10  # one key in so many


class Reclaim:
    """The walk of one live database. `rounds` counts how often all keys were looked at; the engine counts what was removed."""

    def __init__(self, engine: Engine, busy: Container[bytes], monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._busy = busy
        self._monotonic = monotonic
        self._position = META_HEADS[0]
        self.rounds = 0

    def step(self) -> float:
        """Look at some keys; how many seconds to wait until the next step.

        Raises:
            NodeError: RocksDB can't read or write.
        """
        end = self._monotonic() + STEP_S_MAX
        looked = removed = 0
        seen = self._engine.expired_seen
        while seen and looked < KEYS_PER_STEP_MAX and self._monotonic() < end:
            removed += self._remove(seen.popleft())
            looked += 1
        walk = MetaWalk(self._engine.live.database.passing_from, ALL_SLOTS, self._position)
        now_ms, size = self._engine.clock(), 0
        while walk.position is not None and looked < KEYS_PER_STEP_MAX and size < BYTES_PER_STEP_MAX and self._monotonic() < end:
            entry = walk.step()
            looked += 1
            if entry is not None:
                size += len(entry[1])
                moment = expiry_ms(entry[1])
                removed += moment is not None and moment <= now_ms and self._remove(entry[0])
        self._engine.live.commit()
        if walk.position is None:
            self.rounds += 1
        self._position = walk.position or META_HEADS[0]
        busy = removed * BUSY_SHARE >= looked > 0
        return KEYS_PER_STEP_MAX / (KEYS_PER_SECOND_BUSY if busy else KEYS_PER_SECOND)

    def _remove(self, key: bytes) -> bool:
        return key not in self._busy and self._engine.remove_expired(key, key_slot(key))
