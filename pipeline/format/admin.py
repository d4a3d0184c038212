"""The admin commands: how a sidecar speaks to a shard, in RESP over the shard's Unix socket.

::

    REDKV STATUS                           bulk: ShardStatus as JSON
    REDKV REGISTER <dataset> <prefix>      OK; keys under the prefix are read-only for clients from now on
    REDKV UNREGISTER <dataset>             OK; refused while a version is active
    REDKV OPEN <dataset> <version>         OK; opens the published directory read-only, active or not
    REDKV ACTIVATE <dataset> <version>     OK; one durable write, then clients read this version; its directory is opened anew if another
                                           one was published under its name
    REDKV EXPECT <dataset> <version>       OK; clients shall read this version: without an active one, the dataset's keys answer LOADING
                                           from now on; an empty version takes that back
    REDKV CLOSE <dataset> <version>        OK; closes the directory so that it can be removed; refused while it is active
    REDKV PIN <dataset> <version>          OK; this connection reads that version until UNPIN or its end
    REDKV UNPIN                            OK
    REDKV TOPOLOGY                         integer: the epoch after the topology file was read again
    REDKV LATENCY                          bulk: LatencyReport as JSON
    REDKV UPSERT <dataset> <prefix> <version> <build id> <slots> [<file>...]
                                           integer 1: the files were moved into the live database, all of them, and with them the note
                                           that this build's rows of these slots are in; 0: they were before
    slots                                  as in 0-99,107: one ingest unit's (units.py), as far as they are the shard's

All but PIN and UNPIN change nothing when repeated. A refusal is a RESP error `-REDKV <name> <JSON of RedkvError.to_json>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from pipeline.format.errors import NodeError, RedkvError, UsageError
from pipeline.format.records import Record, VersionedRecord
from pipeline.format.slots import SlotRange

COMMAND = "REDKV"


class AdminCommand(StrEnum):
    """The second word of an admin command."""

    STATUS = "STATUS"
    REGISTER = "REGISTER"
    UNREGISTER = "UNREGISTER"
    OPEN = "OPEN"
    ACTIVATE = "ACTIVATE"
    EXPECT = "EXPECT"
    CLOSE = "CLOSE"
    PIN = "PIN"
    UNPIN = "UNPIN"
    TOPOLOGY = "TOPOLOGY"
    LATENCY = "LATENCY"
    UPSERT = "UPSERT"


class Applied(Record):
    """What a delta's own files put over its base, of a shard's slots."""

    keys: int
    entries: int


class VersionIdentity(VersionedRecord):
    """The file VERSION.json in a version directory: what the directory holds, written before it is published.

    `slots` are the shard's slots when it was made; `keys` and `entries` count what it holds of them, `deletes` what an `upsert` or a delta
    removes; `applied` what a delta put. A delta's directory that lost slots says neither: `lost_changes`.
    """

    FORMAT_VERSION: ClassVar[int] = 2
    NEWER: ClassVar[frozenset[str]] = frozenset({"applied"})

    dataset: str
    version: str
    build_id: str
    manifest_sha256: str
    slots: tuple[SlotRange, ...]
    keys: int
    entries: int
    deletes: int = 0
    applied: Applied | None = None

    @property
    def lost_changes(self) -> bool:
        """Whether it is a delta's, and does not know how much of what it holds was put, and how much is gone, by the delta."""
        return self.format_version > 1 and self.applied is None


class DatasetStatus(Record):
    """What a shard knows of one dataset: `active` is None before the first activation, `opened` lists all opened versions.

    `current` is false while the active version is read from a directory that is no longer the one of its name: ACTIVATE opens that one.
    `expected` is the version that clients shall read: another one than `active` while this shard lags behind.
    """

    prefix: str
    active: str | None
    active_build_id: str | None
    opened: tuple[str, ...]
    current: bool = True
    expected: str | None = None


class UpsertStatus(Record):
    """Of which slots the rows of the newest build of an `upsert` dataset are in the live database."""

    version: str
    build_id: str
    slots: tuple[SlotRange, ...]


class ShardStatus(VersionedRecord):
    """What a shard says of itself. `live_keys` is RocksDB's estimate, `upserts` are by dataset.

    `live_level0_files` and `live_compaction_bytes` are what RocksDB still has to sort in the live database.
    """

    shard: str
    pid: int
    topology_epoch: int
    datasets: dict[str, DatasetStatus]
    live_keys: int
    upserts: dict[str, UpsertStatus] = Field(default_factory=dict)
    live_level0_files: int = 0
    live_compaction_bytes: int = 0


LATENCY_BUCKETS = 256  # four per doubling, from a nanosecond to beyond a human life


class LatencyReport(VersionedRecord):
    """How often clients' runs of commands took how long since the shard's start: a sample, by the run's last command, counts by bucket.

    `loop` is not a command: it is how late the shard's event loop turned.
    """

    histograms: dict[str, dict[int, int]]


def latency_bucket(ns: int) -> int:
    """The bucket of a duration in nanoseconds."""
    bits = ns.bit_length()
    return bits * 4 + (ns >> bits - 3 & 3) if bits > 2 else ns


def latency_top_ns(bucket: int) -> int:
    """The first duration in nanoseconds that is beyond a bucket."""
    bits, quarter = divmod(bucket, 4)
    return (5 + quarter) << bits - 3 if bits > 2 else bucket + 1


def slots_word(slots: Iterable[SlotRange]) -> str:
    """Slots as a word of a command: 0-99,107."""
    return ",".join(str(one.first) if one.first == one.last else f"{one.first}-{one.last}" for one in slots)


def parse_slots_word(word: str) -> tuple[SlotRange, ...]:
    """The inverse of `slots_word`.

    Raises:
        UsageError: the word is none of slots.
    """
    try:
        ends = [one.partition("-") for one in word.split(",")]
        return tuple(SlotRange(first=int(first), last=int(last or first)) for first, _, last in ends)
    except ValueError as broken:
        raise UsageError(f"{word!r} are no slots: write them as 0-99,107") from broken


def encode_refusal(error: RedkvError) -> str:
    """A refusal as the text of a RESP error, without the leading `-` and the final CR LF."""
    return f"{COMMAND} {type(error).__name__} {json.dumps(error.to_json())}"


def decode_refusal(text: str) -> RedkvError:
    """The inverse of `encode_refusal`; any other error text becomes a NodeError with that text."""
    word, _, rest = text.partition(" ")
    _, _, record = rest.partition(" ")
    try:
        if word == COMMAND:
            return RedkvError.from_json(json.loads(record))
    except (ValueError, TypeError, LookupError, AttributeError):
        pass  # no refusal of ours, though it starts like one
    return NodeError(f"the shard refused: {text}")
