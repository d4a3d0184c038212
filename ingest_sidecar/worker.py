"""The ingest process: `python -m ingest_sidecar.worker`; what it reads and answers is in ingest.py.

For every shard: link the staged files, ingest them into a RocksDB of their own under `making/`, read everything once and hold it
against the manifest, remove the slots of others, write VERSION.json, sync, publish by rename. Until then, all of it can be deleted.

Error handling: a RedkvError goes to standard output as JSON, with exit code 1, and nothing unpublished stays; anything else is a traceback
on standard error. The process does not outlive its sidecar.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

from ingest_sidecar.disk import disk_failure, publish
from ingest_sidecar.ingest import EntriesSeen, IngestFile, IngestJob, IngestShard
from ingest_sidecar.rocks import VersionDatabase
from pipeline.format.admin import VersionIdentity
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import ChecksumMismatchError, CountMismatchError, RedkvError
from pipeline.format.keys import Kind, parse_key
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SlotRange, slot_set

BATCH_ENTRIES = 4096  # entries digested at a time: large enough that the digest's overhead vanishes, small enough for memory
READ_BYTES = 64 << 10
REST_S_MAX = 0.5  # between two looks at the pace
TOLD_ENTRIES = 100 * BATCH_ENTRIES  # between two signs of life: a good second of checking, far from the coordinator's patience
_KIND_AT = 2  # an internal key is slot (two bytes), kind (one byte), the rest


def main() -> int:
    """Do the job on standard input; the exit code."""
    said = _lines(sys.stdin.fileno())
    job = IngestJob.from_json(next(said), "the ingest job")
    pace = Pace()
    Thread(target=_follow_sidecar, args=(said, pace), daemon=True).start()
    with suppress(OSError):  # a container may forbid it; then the process runs at the sidecar's own priority
        os.nice(job.nice)  # the kernel derives the I/O priority from it
    try:
        told = _Told(pace)
        held = {shard.name: make_version(job, shard, told.add).model_dump(mode="json") for shard in job.shards}
    except RedkvError as failed:
        _answer({"error": failed.to_json()})
        return 1
    except OSError as failed:
        _answer({"error": disk_failure(failed, f"ingesting {job.dataset} {job.version}").to_json()})
        return 1
    _answer({"held": held})
    return 0


class Pace:
    """The share of time that this process may run: after each piece of work it rests for the others' share."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.share = 1.0
        self._clock, self._sleep = clock, sleep
        self._began = clock()

    def rest(self) -> None:
        """Pause as long as the work since the last rest asks for; at a share of 0, until there is one again."""
        worked_s, rested_s = self._clock() - self._began, 0.0
        while (share := self.share) < 1.0 and (share == 0.0 or rested_s < worked_s * (1 - share) / share):
            pause_s = REST_S_MAX if share == 0.0 else min(REST_S_MAX, worked_s * (1 - share) / share - rested_s)
            self._sleep(pause_s)
            rested_s += pause_s
        self._began = self._clock()


def _follow_sidecar(said: Iterator[bytes], pace: Pace) -> None:
    """Standard input brings paces, and ends when the sidecar does, however it died."""
    for line in said:
        pace.share = float(line)
    os._exit(1)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Whole lines. Not by sys.stdin, whose lock a waiting thread would hold when this process ends."""
    rest = b""
    while data := os.read(descriptor, READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _answer(record: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


class _Told:
    """Counts checked entries over all shards, says so from time to time, and keeps the pace."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._entries = self._told = 0

    def add(self, entries: int) -> None:
        self._entries += entries
        if self._entries - self._told >= TOLD_ENTRIES:
            self._told = self._entries
            _answer({"entries": self._entries})
        self._pace.rest()


def make_version(job: IngestJob, shard: IngestShard, seen: EntriesSeen) -> VersionIdentity:
    """Make and publish one shard's version directory, in place of one that is there. `seen` is told how many more entries are checked.

    Raises:
        ChecksumMismatchError, CountMismatchError: the entries are not what the manifest says; nothing is published.
        DiskFullError, IngestProcessError: RocksDB or the operating system refused.
    """
    paths = ShardPaths(shard.data_dir)
    making = paths.unpublished(job.dataset, job.version, job.build_id)
    links = making.with_name(making.name + ".links")
    for leftover in (making, links):
        shutil.rmtree(leftover, ignore_errors=True)
        leftover.mkdir(parents=True)
    try:
        counts = _filled(making, links, shard, seen)
        identity = VersionIdentity(
            dataset=job.dataset,
            version=job.version,
            build_id=job.build_id,
            manifest_sha256=job.manifest_sha256,
            slots=shard.slots,
            keys=counts.keys,
            entries=counts.entries,
        )
        publish(paths, making, identity)
    finally:
        for leftover in (making, links):
            shutil.rmtree(leftover, ignore_errors=True)
    return identity


def _filled(making: Path, links: Path, shard: IngestShard, seen: EntriesSeen) -> _Counts:
    with VersionDatabase(making) as database:
        if shard.files:
            database.ingest([_linked(one, links) for one in shard.files])
        counts = _check(database, shard, seen)
        foreign = [SlotRange(first=slot, last=slot) for slot in sorted(counts.slots_seen - slot_set(shard.slots))]
        if foreign:
            database.drop_slots(_joined(foreign))
            _check_dropped(database, shard, counts)
    return counts


class _Counts:
    """What one walk over a version directory saw, of the shard's own slots."""

    def __init__(self, slots: tuple[SlotRange, ...]) -> None:
        self._owned = slot_set(slots)
        self.slots_seen: set[int] = set()
        self.keys = 0
        self.entries = 0

    def add(self, keys: list[bytes]) -> int:
        """Count entries; how many of them, own or not, are metas."""
        metas = 0
        for key in keys:
            slot = int.from_bytes(key[:_KIND_AT])
            is_meta = key[_KIND_AT] == Kind.META
            metas += is_meta
            self.slots_seen.add(slot)
            if slot in self._owned:
                self.entries += 1
                self.keys += is_meta
        return metas


def _linked(one: IngestFile, links: Path) -> Path:
    link = links / one.path.name
    os.link(one.path, link)
    return link


def _check(database: VersionDatabase, shard: IngestShard, seen: EntriesSeen) -> _Counts:
    """Read everything once, file by file, as the files lie one after the other."""
    counts = _Counts(shard.slots)
    walk = EntryWalk(database.entries())
    for one in shard.files:
        digest, found, metas = ContentDigest(), 0, 0
        for keys, values in walk.up_to(one.file.largest):
            digest.update(keys, values)
            found += len(keys)
            seen(len(keys))
            metas += counts.add(keys)
        if (found, metas) != (one.file.entries, one.file.keys):
            message = (
                f"{one.file.object_key} holds {found} entries of {metas} keys in shard {shard.name}, "
                f"the manifest says {one.file.entries} of {one.file.keys}"
            )
            raise CountMismatchError(message, object=one.file.object_key, shard=shard.name)
        if digest.hexdigest() != one.file.content_digest:
            message = f"{one.file.object_key} has another content digest in shard {shard.name} than the manifest says"
            raise ChecksumMismatchError(message, object=one.file.object_key, shard=shard.name)
    if walk.ahead is not None:
        raise CountMismatchError(
            f"shard {shard.name} holds {parse_key(walk.ahead[0])}, which no file of the manifest has", shard=shard.name
        )
    return counts


def _check_dropped(database: VersionDatabase, shard: IngestShard, before: _Counts) -> None:
    after = _Counts(shard.slots)
    walk = EntryWalk(database.entries())
    for keys, _ in walk.up_to(None):
        after.add(keys)
    if (after.keys, after.entries) != (before.keys, before.entries) or after.slots_seen - slot_set(shard.slots):
        message = (
            f"after foreign slots were removed, shard {shard.name} holds {after.entries} entries of {after.keys} keys; "
            f"{before.entries} of {before.keys} are its own"
        )
        raise CountMismatchError(message, shard=shard.name)


def _joined(slots: list[SlotRange]) -> list[SlotRange]:
    """Neighbouring ranges as one: fewer tombstones, fewer compactions."""
    joined: list[SlotRange] = []
    for one in slots:
        if joined and joined[-1].last + 1 == one.first:
            joined[-1] = SlotRange(first=joined[-1].first, last=one.last)
        else:
            joined.append(one)
    return joined


class EntryWalk:
    """Entries in key order, in batches; `ahead` is the first one not yet handed out, None at the end."""

    def __init__(self, entries: Iterator[tuple[bytes, bytes]]) -> None:
        self._entries = entries
        self.ahead = next(entries, None)

    def up_to(self, last: bytes | None) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Batches of keys and values, up to the key `last` (None: to the end)."""
        keys: list[bytes] = []
        values: list[bytes] = []
        while self.ahead is not None and (last is None or self.ahead[0] <= last):
            keys.append(self.ahead[0])
            values.append(self.ahead[1])
            if len(keys) == BATCH_ENTRIES:
                yield keys, values
                keys, values = [], []
            self.ahead = next(self._entries, None)
        if keys:
            yield keys, values


if __name__ == "__main__":
    sys.exit(main())
