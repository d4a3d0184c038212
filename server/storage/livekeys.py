"""Which live keys stand under a prefix. Needed once per dataset, when it is registered.

Keys are ordered by slot, so a prefix is looked for in every slot that holds anything: one seek each, and none for empty slots. A prefix
with a whole hash tag in it has only one slot. The search is cut into steps, so that readers are served in between.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.format.keys import meta_key
from pipeline.format.slots import SLOT_COUNT, hash_tag, key_slot
from pipeline.format.values import expiry_ms
from server.storage.rocks import Database

SEEKS_PER_STEP = 64  # about half a millisecond of the event loop when blocks are cached

_HEAD_BYTES = len(meta_key(b"", 0))
_SLOT_BYTES = 2


def live_keys_under(live: Database, prefix: bytes, now_ms: int) -> Iterator[bytes | None]:
    """User keys under `prefix` that have not expired; None after every step's end, to let others run."""
    tag = hash_tag(prefix)
    fixed = key_slot(prefix) if tag != prefix else None
    slot, seeks = fixed or 0, 0
    while slot < SLOT_COUNT:
        start = meta_key(prefix, slot)
        seen = None
        for key, value in live.entries_from(start):
            if not key.startswith(start):
                seen = key
                break
            expiry = expiry_ms(value)
            if expiry is None or expiry > now_ms:
                yield key[_HEAD_BYTES:]
        if seen is None or fixed is not None:
            return
        found = int.from_bytes(seen[:_SLOT_BYTES], "big")
        slot = found if found > slot else slot + 1
        seeks += 1
        if seeks % SEEKS_PER_STEP == 0:
            yield None
