"""The admin commands: how a sidecar speaks to a shard, in RESP over the shard's Unix socket.

::

    REDKV STATUS                           bulk: ShardStatus as JSON
    REDKV REGISTER <dataset> <prefix>      OK; keys under the prefix are read-only for clients from now on
    REDKV UNREGISTER <dataset>             OK; refused while a version is active
    REDKV OPEN <dataset> <version>         OK; opens the published directory read-only, active or not
    REDKV ACTIVATE <dataset> <version>     OK; one durable write, then clients read this version; its directory is opened anew if another
                                           one was published under its name
    REDKV CLOSE <dataset> <version>        OK; closes the directory so that it can be removed; refused while it is active
    REDKV PIN <dataset> <version>          OK; this connection reads that version until UNPIN or its end
    REDKV UNPIN                            OK
    REDKV TOPOLOGY                         integer: the epoch after the topology file was read again
    REDKV LATENCY                          bulk: LatencyReport as JSON

All but PIN and UNPIN change nothing when repeated. A refusal is a RESP error `-REDKV <name> <JSON of RedkvError.to_json>`.
"""

from __future__ import annotations

import json
from enum import StrEnum

from pipeline.format.errors import NodeError, RedkvError
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
    CLOSE = "CLOSE"
    PIN = "PIN"
    UNPIN = "UNPIN"
    TOPOLOGY = "TOPOLOGY"
    LATENCY = "LATENCY"


class VersionIdentity(VersionedRecord):
    """The file VERSION.json in a version directory: what the directory holds, written before it is published.

    `slots` are the shard's slots when it was made; `keys` and `entries` count what it holds of them.
    """

    dataset: str
    version: str
    build_id: str
    manifest_sha256: str
    slots: tuple[SlotRange, ...]
    keys: int
    entries: int


class DatasetStatus(Record):
    """What a shard knows of one dataset: `active` is None before the first activation, `opened` lists all opened versions.

    `current` is false while the active version is read from a directory that is no longer the one of its name: ACTIVATE opens that one.
    """

    prefix: str
    active: str | None
    active_build_id: str | None
    opened: tuple[str, ...]
    current: bool = True


class ShardStatus(VersionedRecord):
    """What a shard says of itself. `live_keys` is RocksDB's estimate."""

    shard: str
    pid: int
    topology_epoch: int
    datasets: dict[str, DatasetStatus]
    live_keys: int


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
