"""Slots: which part of the cluster a key belongs to.

Rule (Redis Cluster's): slot = CRC16/XMODEM(tag) mod 16384, where tag is the text between the first `{` and the first `}` after it
if that text is not empty, and the whole key otherwise. `binascii.crc_hqx` with start value 0 is CRC16/XMODEM.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import ClassVar

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
    return crc_hqx(hash_tag(key) if b"{" in key else key, 0) & _SLOT_MASK


def key_slots(keys: Sequence[bytes]) -> list[int]:
    """As `key_slot` of each; quicker, if they have no tags."""
    if b"{" in b"".join(keys):
        return list(map(key_slot, keys))
    return [crc_hqx(key, 0) & _SLOT_MASK for key in keys]


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots `first` to `last`, both included. A field of records, but no model itself: what needs no records need not import them."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = MappingProxyType({"extra": "forbid"})

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < SLOT_COUNT:
            raise ValueError(f"slot range {self.first}-{self.last} is not within 0-{SLOT_COUNT - 1}, first to last")

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


def slots_without(ranges: Iterable[SlotRange]) -> list[SlotRange]:
    """All slots but those of some ranges, as few ranges as there can be."""
    taken = sorted((one.first, one.last) for one in ranges)
    found, begin = [], 0
    for first, last in [*taken, (SLOT_COUNT, SLOT_COUNT)]:
        if first > begin:
            found.append(SlotRange(first=begin, last=first - 1))
        begin = max(begin, last + 1)
    return found


def ranges_of(slots: Iterable[int]) -> tuple[SlotRange, ...]:
    """Some slots, each given once, as few ranges as there can be, in order."""
    found: list[SlotRange] = []
    for _, run in groupby(enumerate(sorted(slots)), key=lambda one: one[1] - one[0]):
        members = [slot for _, slot in run]
        found.append(SlotRange(first=members[0], last=members[-1]))
    return tuple(found)


def even_ranges(count: int) -> list[SlotRange]:
    """All slots cut into `count` contiguous ranges whose sizes differ by at most one."""
    if not 1 <= count <= SLOT_COUNT:
        raise ValueError(f"can't cut {SLOT_COUNT} slots into {count} ranges")
    borders = [index * SLOT_COUNT // count for index in range(count + 1)]
    return [SlotRange(first=low, last=high - 1) for low, high in pairwise(borders)]
