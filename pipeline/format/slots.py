"""Slots: which part of the cluster a key belongs to.

Rule (Redis Cluster's): slot = CRC16/XMODEM(tag) mod 16384, where tag is the text between the first `{` and the first `}` after it
if that text is not empty, and the whole key otherwise. `binascii.crc_hqx` with start value 0 is CRC16/XMODEM.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, model_validator

SLOT_COUNT = 16_384  # Redis Cluster's number
_SLOT_MASK = SLOT_COUNT - 1


def hash_tag(key: bytes) -> bytes:
    """The part of `key` that is hashed."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            return key[start + 1 : end]
    return key


def key_slot(key: bytes) -> int:
    """The slot of a user key, 0..16383."""
    return crc_hqx(hash_tag(key), 0) & _SLOT_MASK


class SlotRange(BaseModel):
    """Slots `first` to `last`, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    last: int

    @model_validator(mode="after")
    def _check(self) -> SlotRange:
        if not 0 <= self.first <= self.last < SLOT_COUNT:
            raise ValueError(f"slot range {self.first}-{self.last} is not within 0-{SLOT_COUNT - 1}, first to last")
        return self

    def __contains__(self, slot: int) -> bool:
        return self.first <= slot <= self.last

    def overlaps(self, other: SlotRange) -> bool:
        """Whether both share a slot."""
        return self.first <= other.last and other.first <= self.last

    def covers(self, other: SlotRange) -> bool:
        """Whether `other` lies wholly within this range."""
        return self.first <= other.first and other.last <= self.last


def slot_set(ranges: Iterable[SlotRange]) -> frozenset[int]:
    """All slots of some ranges."""
    return frozenset(slot for one in ranges for slot in range(one.first, one.last + 1))


def even_ranges(count: int) -> list[SlotRange]:
    """All slots cut into `count` contiguous ranges whose sizes differ by at most one."""
    if not 1 <= count <= SLOT_COUNT:
        raise ValueError(f"can't cut {SLOT_COUNT} slots into {count} ranges")
    borders = [index * SLOT_COUNT // count for index in range(count + 1)]
    return [SlotRange(first=low, last=high - 1) for low, high in pairwise(borders)]
