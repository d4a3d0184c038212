"""All keys of a shard, source by source: the live database first, then the active version of every dataset, by name.

Rules:
- Within a source, keys come in the order of their internal keys: by slot, then by user key. So a position is a key, it stays one when the
  keys around it come and go, and it goes on in another version of the same dataset.
- Metas of a slot are one range. Whatever else a slot holds is leapt over by one seek.
- A walk sees what was there when it last made an iterator: when it began, and at every leap. Nothing that is there all the while is missed.
- A dataset whose active version can't be read is an error, not a dataset without keys.

::

    position := "keys" 0x00 source-name 0x00 internal-key      (what a cursor of SCAN stands for; the live database has no name)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline.format.keys import KIND_AT, Kind
from pipeline.format.slots import SLOT_COUNT
from server.storage.datasets import DatasetIndex, OpenVersion
from server.storage.live import Entry, LiveStore
from server.storage.lookup import META_HEADS

ALL_SLOTS = bytes([1]) * SLOT_COUNT

EntriesFrom = Callable[[bytes], Iterator[Entry]]

META_HEAD_BYTES = len(META_HEADS[0])
_SLOT_BYTES = 2
_WHAT = b"keys\x00"


class MetaWalk:
    """The metas of one database in order, from `position` on, of slots that `wanted` has a 1 for. `position` is where to go on; None at
    the end.
    """

    __slots__ = ("_entries", "_entries_from", "_wanted", "position")

    def __init__(self, entries_from: EntriesFrom, wanted: bytes | bytearray, position: bytes = META_HEADS[0]) -> None:
        self._entries_from = entries_from
        self._wanted = wanted
        self.position: bytes | None = position
        self._entries: Iterator[Entry] | None = None

    def step(self) -> Entry | None:
        """The next meta: its user key and value. None if this step was a leap, or the end."""
        if self.position is None:
            return None
        if self._entries is None:
            self._entries = self._entries_from(self.position)
        found = next(self._entries, None)
        if found is None:
            self.position = None
            return None
        key, value = found
        slot = slot_of(key)
        if slot >= SLOT_COUNT:
            self.position = None
        elif key[KIND_AT] != Kind.META:
            self._leap(slot + 1)
        elif not self._wanted[slot]:
            self._leap(slot)
        else:
            self.position = key + b"\x00"
            return key[META_HEAD_BYTES:], value
        return None

    def _leap(self, slot: int) -> None:
        """To the first wanted slot that is not below `slot`."""
        slot = self._wanted.find(1, slot)
        self.position = None if slot < 0 else META_HEADS[slot]
        self._entries = None


@dataclass(frozen=True, slots=True)
class Source:
    """One database with keys. A context manager while it is walked over several turns: a version is held open."""

    name: str  # of the dataset; empty for the live database
    live: LiveStore
    version: OpenVersion | None
    unpin: Callable[[OpenVersion], None]

    @property
    def entries_from(self) -> EntriesFrom:
        """Where a MetaWalk of it begins."""
        return self.live.entries_from if self.version is None else self.version.database.passing_from

    def __enter__(self) -> Self:
        if self.version is not None:
            self.version.pins += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.version is not None:
            self.unpin(self.version)


class Keyspace:
    """The sources that a connection reads: those of everybody, but for its pins."""

    def __init__(self, live: LiveStore, index: DatasetIndex, pins: Mapping[str, OpenVersion], unpin: Callable[[OpenVersion], None]) -> None:
        self._live = live
        self._index = index
        self._pins = pins
        self._unpin = unpin

    @property
    def live(self) -> Source:
        """The first source."""
        return Source("", self._live, None, self._unpin)

    def from_name(self, name: str) -> Source | None:
        """The first source whose name is not below `name`; None if there is none.

        Raises:
            ReplyError: it can't be read.
        """
        if not name:
            return self.live
        for one in sorted(self._index.by_name):
            if one >= name and (version := self._version(one)) is not None:
                return Source(one, self._live, version, self._unpin)
        return None

    def after(self, source: Source) -> Source | None:
        """The next source.

        Raises:
            ReplyError: it can't be read.
        """
        return self.from_name(source.name + "\x00")

    def all(self) -> Iterator[Source]:
        """All sources.

        Raises:
            ReplyError: one can't be read.
        """
        source: Source | None = self.live
        while source is not None:
            yield source
            source = self.after(source)

    def _version(self, name: str) -> OpenVersion | None:
        if name in self._pins:
            return self._pins[name]
        dataset = self._index.by_name[name]
        dataset.check()
        return dataset.active


def encode_position(source: Source, key: bytes) -> bytes:
    """What a cursor keeps."""
    return _WHAT + source.name.encode() + b"\x00" + key


def parse_position(position: bytes) -> tuple[str, bytes]:
    """Name of the source, and key. What is no position in the keyspace is its beginning."""
    if not position.startswith(_WHAT):
        return "", META_HEADS[0]
    name, _, key = position[len(_WHAT) :].partition(b"\x00")
    return name.decode(), key


def slot_of(internal_key: bytes) -> int:
    """Its slot; SLOT_COUNT or more for a shard's own notes."""
    return int.from_bytes(internal_key[:_SLOT_BYTES])
