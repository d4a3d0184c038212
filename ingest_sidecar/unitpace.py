"""How fast the units of an upsert follow each other into a live database: readers come first there, too.

Rules:
- At full pace it rests between two units, so that they take SHARE_MAX of the time and no more, but never longer than REST_S_MAX.
- At the governor's pace, a unit and its rest take so much longer that as many units go in as the pace says, but no rest is longer than
  REST_S_LONGEST. At a pace of 0 it waits until there is one again. A rest that readers make longer is told.
- Before each unit, RocksDB must be through with what came before: each unit may add files to level 0, which every read looks through, and
  bytes for compactions, which take CPU and disk from readers. These end by themselves, so this waits only so long as they need, and no
  longer than COMPACTED_S_MAX.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from ingest_sidecar.shard_client import ShardClient
from pipeline.format.errors import CompactionLagError

SHARE_MAX = 0.03  # some tenth of a unit's time holds the shard's loop, and RocksDB sorts it in after: few of a hundred requests meet either
REST_S_MAX = (
    2.0  # the loop's stall of some 10 ms is then half a percent of the time: longer rests would help nobody, as long as readers are well
)
REST_S_LONGEST = 60.0  # at any pace: half of the time after which a coordinator takes this node for stuck
LEVEL0_FILES_MAX = 8  # RocksDB compacts from 4 on, and slows writers down at 20
COMPACTION_BYTES_MAX = 8 << 30  # RocksDB slows writers down at 64 GiB: a unit of a hot slot may be large
COMPACTED_S_MAX = 100.0  # some GB take a minute; longer, a coordinator would take this node for stuck without a word why
LOOK_S = 0.2
UNIT_S = 0.1  # how long one takes, until one has been seen

Sleep = Callable[[float], Awaitable[None]]


async def rest(pace: Callable[[], float], worked_s: float, tell: Callable[[str], None], sleep: Sleep = asyncio.sleep) -> None:
    """Pause as long as a piece of work of so many seconds asks for; `tell` hears of a pause that readers make longer, or endless."""
    rested_s, told = 0.0, False
    while rested_s < (needed_s := _rest_s(worked_s, now := pace())):
        if now < 1.0 and needed_s > REST_S_MAX and not told:
            tell("waiting for readers: their p99 is beyond its budget, or was lately")
            told = True
        pause_s = min(LOOK_S, needed_s - rested_s)
        await sleep(pause_s)
        rested_s += pause_s


def at_full_pace_s(units: int, worked_s: float) -> float:
    """How long so many units take, with their rests, if each works so many seconds and readers slow none down."""
    return units * (worked_s + _rest_s(worked_s, 1.0))


def _rest_s(worked_s: float, pace: float) -> float:
    if pace == 0.0:
        return math.inf
    at_full_pace = min(REST_S_MAX, worked_s * (1 - SHARE_MAX) / SHARE_MAX)
    return min(REST_S_LONGEST, (worked_s + at_full_pace) / pace - worked_s)


async def until_compacted(client: ShardClient, tell: Callable[[str], None], sleep: Sleep = asyncio.sleep) -> None:
    """Wait until a shard's live database has little left to sort; `tell` hears once that it waits: how much is left goes up and down.

    Raises:
        ShardUnavailableError: the shard does not answer.
        CompactionLagError: it still has much to sort after COMPACTED_S_MAX.
    """
    waited_s, name = 0.0, client.shard.name
    while (shard := await client.status()).live_level0_files >= LEVEL0_FILES_MAX or shard.live_compaction_bytes >= COMPACTION_BYTES_MAX:
        if waited_s == 0.0:
            tell(f"waiting for shard {name} to compact")
        if waited_s >= COMPACTED_S_MAX:
            left = f"{shard.live_level0_files} files of level 0, {shard.live_compaction_bytes} bytes"
            message = (
                f"shard {name} has not compacted enough in {COMPACTED_S_MAX:.0f} s to take in more ({left} left): it is waited for again"
            )
            raise CompactionLagError(message, shard=name, files=shard.live_level0_files, bytes=shard.live_compaction_bytes)
        await sleep(LOOK_S)
        waited_s += LOOK_S
