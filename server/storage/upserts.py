"""Upserts: the files of a bulk load, taken into the live database between two commands.

Rules:
- The files of an ingest unit go in by one call, with a note of the shard's own in a file beside them: so files and note are there together
  or not at all, and a unit that comes again after a crash is seen and left out, even if clients wrote in between.
- The note says of which slots a build's rows are in. So a shard that gained slots takes their rows too, and never those of others again.
- Later writes win over what is ingested, ingested keys over what was there. Whatever was read or is watched counts as changed.
- What lies in the memtable and overlaps the files is flushed beforehand, in a thread. If clients write there again meanwhile, that is
  repeated; the last time, RocksDB flushes within the call, and the loop waits for it.
- A command that changes one of the dataset's keys over several turns is waited for: it would put back what it began with.
- A dataset has one note, of its newest version. An older version than that is refused: it would undo a newer one.
  So is another build of the same version: big collections of both have the same element version, so fields of both would be found.
- Elements of replaced collections are garbage, which the sweep finds.

::

    key    := local_key("upsert/" dataset)      (pipeline/format/keys.py)
    value  := UpsertNote as JSON
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from pipeline.format.admin import UpsertStatus, slots_word
from pipeline.format.crashpoints import UpsertPoint, crash_point
from pipeline.format.errors import NodeError, PrefixOverlapError, SlotsMovedError, StaleEpochError
from pipeline.format.keys import local_key
from pipeline.format.records import VersionedRecord, version_order
from pipeline.format.slots import SlotRange, ranges_of, slot_set
from server.storage.engine import Engine
from server.storage.gate import Gate
from server.storage.rocks import write_sst

FLUSHES_MAX = 8  # each takes some 100 ms at most; clients that write between all of them make the ninth hold the loop

_PREFIX = local_key(b"upsert/")


@dataclass(frozen=True, slots=True)
class Unit:
    """One ingest unit of one build, as far as its slots are the shard's, and the prefix of its dataset's keys."""

    dataset: str
    prefix: str
    version: str
    build_id: str
    slots: tuple[SlotRange, ...]


class UpsertNote(VersionedRecord):
    """The slots whose rows of a build are in the live database."""

    dataset: str
    version: str
    build_id: str
    slots: tuple[SlotRange, ...]


class Upserts:
    """The upserts of one shard. `scratch` is a directory on the live database's file system, `held` gives the shard's slots."""

    def __init__(self, engine: Engine, gate: Gate, scratch: Path, held: Callable[[], frozenset[int]]) -> None:
        self._engine = engine
        self._gate = gate
        self._database = engine.live.database
        self._scratch = scratch
        self._held = held
        self._log = structlog.get_logger("server.upserts")
        self.flushes_within = 0  # ingestions that held the loop for a flush

    async def ingest(self, unit: Unit, files: list[Path]) -> bool:
        """Take a unit in, unless it is there; whether it was not.

        Raises:
            PrefixOverlapError: keys of the dataset would be those of one that is served from versions.
            StaleEpochError: a newer version of the dataset is there, or another build of this one.
            SlotsMovedError: some of its slots are in already, or are another shard's.
            NodeError: RocksDB refuses the files. Nothing of them is there.
        """
        before = self._note(unit.dataset)
        covered = slot_set(before.slots) if before is not None and before.build_id == unit.build_id else frozenset()
        slots = slot_set(unit.slots)
        if slots <= covered:
            return False
        self._check(unit, before)
        if slots & covered:
            raise _moved(unit, "are in already", slots & covered)
        self._check_held(unit, slots)
        note = UpsertNote(dataset=unit.dataset, version=unit.version, build_id=unit.build_id, slots=ranges_of(covered | slots))
        marker = self._scratch / f"{uuid4().hex}.sst"
        crash_point(UpsertPoint.INGESTING)
        try:
            await asyncio.to_thread(self._write_marker, marker, _key(unit.dataset), note.to_json())
            await self._ingest([*files, marker], unit, slots)
        finally:
            marker.unlink(missing_ok=True)
        crash_point(UpsertPoint.INGESTED)
        self._engine.rows_replaced(unit.prefix.encode(), slots)
        return True

    def status(self) -> dict[str, UpsertStatus]:
        """What is there, by dataset."""
        found = {}
        for key, value in self._database.entries_from(_PREFIX):
            if not key.startswith(_PREFIX):
                break
            note = self._read(key, value)
            found[note.dataset] = UpsertStatus(version=note.version, build_id=note.build_id, slots=note.slots)
        return found

    def _check(self, unit: Unit, before: UpsertNote | None) -> None:
        prefix = unit.prefix.encode()
        for other in self._engine.index.ordered:
            if other.prefix.startswith(prefix) or prefix.startswith(other.prefix):
                raise PrefixOverlapError(
                    f"prefix {unit.prefix!r} of dataset {unit.dataset} overlaps prefix {other.pointer.prefix!r} of "
                    f"{other.pointer.dataset}, whose keys are served from versions; choose another prefix",
                    dataset=unit.dataset,
                    other=other.pointer.dataset,
                )
        if before is None:
            return
        if before.version == unit.version and before.build_id != unit.build_id:
            raise StaleEpochError(
                f"version {unit.version} of {unit.dataset} was ingested here as build {before.build_id}; rows of build "
                f"{unit.build_id} would mix with its rows: load them as another version",
                dataset=unit.dataset,
                version=unit.version,
                newest=before.version,
            )
        if version_order(before.version) > version_order(unit.version):
            raise StaleEpochError(
                f"version {before.version} of {unit.dataset} was ingested here; version {unit.version} is older, and would undo it",
                dataset=unit.dataset,
                version=unit.version,
                newest=before.version,
            )

    def _check_held(self, unit: Unit, slots: frozenset[int]) -> None:
        if foreign := slots - self._held():
            raise _moved(unit, "are not this shard's", foreign)

    def _write_marker(self, path: Path, key: bytes, value: bytes) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        write_sst(path, key, value)

    async def _ingest(self, files: list[Path], unit: Unit, slots: frozenset[int]) -> None:
        """All files or none; what the loop did meanwhile is in the database already: runs end with a commit."""
        for _ in range(FLUSHES_MAX):
            await asyncio.to_thread(self._database.flush)
            await self._free(unit, slots)
            try:
                self._database.ingest(files, may_flush=False)
            except NodeError as refused:
                if not all(one.exists() for one in files):
                    raise
                self._log.info("ingestion is tried again", error=refused.message)
            else:
                return
        await self._free(unit, slots)
        self.flushes_within += 1
        self._database.ingest(files, may_flush=True)

    async def _free(self, unit: Unit, slots: frozenset[int]) -> None:
        """Returns in a turn in which the unit may go in: nobody is changing its keys, and its slots are still the shard's."""
        await self._gate.free_below(unit.prefix.encode())
        self._check_held(unit, slots)

    def _note(self, dataset: str) -> UpsertNote | None:
        key = _key(dataset)
        value = self._database.get(key)
        return None if value is None else self._read(key, value)

    def _read(self, key: bytes, value: bytes) -> UpsertNote:
        return UpsertNote.from_json(value, f"note {key!r} of {self._database.path}")


def _key(dataset: str) -> bytes:
    return _PREFIX + dataset.encode()


def _moved(unit: Unit, what: str, slots: frozenset[int]) -> SlotsMovedError:
    word = slots_word(ranges_of(slots))
    message = f"slots {word} of {unit.dataset} {unit.version} {what}: the unit is prepared again for those that are missing"
    return SlotsMovedError(message, dataset=unit.dataset, version=unit.version, slots=word)
