"""One version of an `upsert` dataset on this node: its rows enter the live databases of the shards, unit by unit.

Rules:
- READY: per shard, the files with rows of its slots are prepared in the version's directory (prepare.py). No client sees anything yet.
- ACTIVE: the shards took all units in. What is in, by slots, is what the shards' own notes say, never what this node remembers: so a crash
  anywhere repeats nothing, and a slot that a shard gains later brings its rows, and no others.
- The files go over into the live database; VERSION.json stays, for what it counts. There is no way back, so RETIRED keeps nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ingest_sidecar.chain import Chain
from ingest_sidecar.deadline import deadline_ms, floor
from ingest_sidecar.disk import has_files, remove_files, remove_staged, remove_version
from ingest_sidecar.job import IngestJob
from ingest_sidecar.notes import noted_files
from ingest_sidecar.plan import Plan, Slots
from ingest_sidecar.samples import changed_samples
from ingest_sidecar.unitpace import UNIT_S, at_full_pace_s, rest, until_compacted
from ingest_sidecar.version import Node, VersionOnNode, to_its_end
from pipeline.format.admin import AdminCommand, ShardStatus, VersionIdentity, slots_word
from pipeline.format.crashpoints import UpsertPoint, crash_point
from pipeline.format.desired import DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import IngestProcessError, SlotsMovedError
from pipeline.format.layout import FILES_FILE
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.format.slots import SLOT_COUNT, ranges_of, slot_set
from pipeline.format.units import IngestUnit, ingest_units
from pipeline.load.states import Event, State

ALL_SLOTS = frozenset(range(SLOT_COUNT))


def version_on_node(node: Node, name: str, dataset: DesiredDataset, wanted: DesiredVersion) -> VersionOnNode:
    """A wanted version, as the dataset's mode has it."""
    kind = UpsertOnNode if dataset.mode == "upsert" else VersionOnNode
    return kind(node, name, dataset.prefix, wanted)


class UpsertOnNode(VersionOnNode):
    """One wanted version of one `upsert` dataset on this node."""

    def __init__(self, node: Node, dataset: str, prefix: str, wanted: DesiredVersion) -> None:
        super().__init__(node, dataset, prefix, wanted)
        self._in: Mapping[str, frozenset[int]] = {}  # per shard the slots whose rows are in, when it was asked last
        self._left_s: dict[str, float] = {}  # per shard, how long the units that it still takes in need at full pace

    def observe(self, held: Mapping[str, Slots], shards: Mapping[str, ShardStatus]) -> None:
        """Find out whether an absent version is in the live databases of all shards."""
        if self.progress.state is not State.ABSENT or self.wanted.goal is Goal.RETIRED:
            return
        everywhere = all(name in shards and self._has_all(shards[name], slots) for name, slots in held.items())
        if everywhere and not any(has_files(self._directory(name)) for name in held):  # what a crash left is taken away by `activate`
            made = (Event.STAGE, Event.STAGE_DONE, Event.INGEST, Event.INGEST_DONE)
            self._found(self._known(held), (*made, Event.ACTIVATE))

    def fell_back(self, shards: Mapping[str, ShardStatus], held: Mapping[str, Slots]) -> bool:
        """Whether it is not what it was: staged or prepared for other slots than are missing now, or not in everywhere."""
        answering = {name: slots for name, slots in held.items() if name in shards}
        match self.progress.state:
            case State.STAGED:
                return self.is_overtaken(held)
            case State.READY:
                return any(not self._is_prepared(name, slots, self._slots_in(shards[name])) for name, slots in answering.items())
            case State.ACTIVE:
                return any(not self._has_all(shards[name], slots) for name, slots in answering.items())
            case _:
                return False

    def is_overtaken(self, held: Mapping[str, Slots]) -> bool:
        """Whether what is being made, staged or taken in goes by other slots than the shards now own."""
        working = {State.STAGING, State.STAGED, State.INGESTING, State.READY}
        return self.progress.state in working and self._planned_for != held

    async def stage(self, held: Mapping[str, Slots]) -> None:
        """Bring the files of the slots that are not in yet to this node's disk, unless they are prepared."""
        await self._ask()
        await self._read_manifest()
        await super().stage(held)

    async def ingest(self, held: Mapping[str, Slots]) -> None:
        """Prepare the files of every shard."""
        self.progress.apply(Event.INGEST)
        self._planned_for = held
        await self._ask()
        if lacking := self._lacking(held):
            chain = await self._chain(lacking)
            self.progress.at("waiting for an ingest process")
            async with self._node.ingests:
                self.progress.at("checking and preparing")
                await self._make(self._job(chain, {}))
            self._node.metrics.bytes.labels("ingest").inc(chain.bytes)
        self.progress.hold(self._known(held))
        await to_its_end(remove_staged, self._node.paths, self.dataset, self.wanted.version)
        self.progress.apply(Event.INGEST_DONE)
        self.progress.at("ready")

    async def activate(self) -> None:
        """Let the shards take in what they lack, all shards at once; then read the samples, which clients may have changed since."""
        manifest = await self._read_manifest()
        self._left_s.clear()
        await self._ask()
        taken = await asyncio.gather(*(self._take_in(name, manifest) for name in self._node.clients), return_exceptions=True)
        for outcome in taken:
            if isinstance(outcome, BaseException):
                raise outcome
        self.progress.at("looking whether all of it is in")
        shards = await self._ask()
        if missing := [name for name, slots in self._planned_for.items() if not self._has_all(shards[name], slots)]:
            message = f"{self.dataset} {self.wanted.version} is not in for all slots of {', '.join(missing)}: they moved meanwhile"
            raise SlotsMovedError(message, dataset=self.dataset, version=self.wanted.version, shards=missing)
        self.progress.at("reading samples")
        checks = (changed_samples(manifest, client, self._planned_for.get(name, ())) for name, client in self._node.clients.items())
        counted = await asyncio.gather(*checks)
        self.progress.samples_checked = sum(checked for checked, _ in counted)
        self.progress.samples_changed = sum(changed for _, changed in counted)
        for name in self._node.clients:
            await to_its_end(remove_files, self._directory(name))
        self.progress.apply(Event.ACTIVATE)
        self.progress.at("active")

    async def retire(self, shards: Mapping[str, ShardStatus]) -> bool:  # noqa: ARG002 -- no successor is waited for: its rows lie over these
        """Drop what is prepared."""
        for name in self._node.clients:
            await to_its_end(remove_version, self._node.shard_paths(name), self.dataset, self.wanted.version)
        self.progress.apply(Event.RETIRE)
        self.progress.at("retired")
        return True

    def slowest_pace(self, fetch_bytes_s: float, now_ms: float) -> float:
        """As of any version; and how slowly its units may go in."""
        if self._manifest is None or self.progress.state is not State.READY or self.wanted.goal is not Goal.ACTIVE:
            return super().slowest_pace(fetch_bytes_s, now_ms)
        deadline = deadline_ms(self._manifest.spec, self._manifest.built_at_ms)
        return floor(deadline, now_ms, max(self._left_s.values(), default=0.0))

    def is_read(self, shards: Mapping[str, ShardStatus]) -> bool:
        """Whether some of it is in."""
        notes = (shard.upserts.get(self.dataset) for shard in shards.values())
        return any(note is not None and note.build_id == self.wanted.build_id for note in notes)

    async def _take_in(self, name: str, manifest: Manifest) -> None:
        client, directory = self._node.clients[name], self._directory(name)
        identity = self._prepared(name)
        missing = slot_set(identity.slots) - self._in[name] if identity else frozenset()
        units = [(unit, slots) for unit in ingest_units(manifest.files) if (slots := ranges_of(slot_set([unit.slots]) & missing))]
        took_s = 0.0
        for number, (unit, slots) in enumerate(units, 1):
            self._left_s[name] = at_full_pace_s(len(units) - number + 1, took_s or UNIT_S)
            await rest(self._node.pace, took_s, self.progress.at)
            await until_compacted(client, self.progress.at)
            self.progress.at(f"unit {number} of {len(units)} into shard {name}")
            began = time.monotonic()
            files = self._files(directory, unit)
            words = (self.prefix, self.wanted.version, self.wanted.build_id, slots_word(slots), *map(str, files))
            await client.admin(AdminCommand.UPSERT, self.dataset, *words)
            took_s = time.monotonic() - began
            crash_point(UpsertPoint.UNIT_IN)
            self._node.metrics.bytes.labels("upsert").inc(sum(one.bytes for one in unit.files))
        self._left_s[name] = 0.0
        self.progress.activated_ms.setdefault(name, int(time.time() * 1000))

    def _files(self, directory: Path, unit: IngestUnit) -> list[Path]:
        """What a unit has here: a file that has no row of the shard's slots is not prepared."""
        there = noted_files(directory)
        files = [directory / there[name] for name in _names(unit) if name in there] if there is not None else []
        gone = [path.name for path in files if not path.exists()] if there is not None else [FILES_FILE]
        if gone:
            message = f"{directory} lacks {', '.join(gone)}: {self.dataset} {self.wanted.version} is prepared again"
            raise IngestProcessError(message, dataset=self.dataset, version=self.wanted.version)
        return files

    async def _ask(self) -> dict[str, ShardStatus]:
        """Ask all shards what is in.

        Raises:
            ShardUnavailableError: one does not answer.
        """
        clients = self._node.clients
        shards = dict(zip(clients, await asyncio.gather(*(one.status() for one in clients.values())), strict=True))
        self._in = {name: self._slots_in(shard) for name, shard in shards.items()}
        return shards

    def _slots_in(self, shard: ShardStatus) -> frozenset[int]:
        """The slots whose rows are in; all of them if those of a newer version are, as these would undo them."""
        note = shard.upserts.get(self.dataset)
        if note is None:
            return frozenset()
        if note.build_id == self.wanted.build_id:
            return slot_set(note.slots)
        return ALL_SLOTS if version_order(note.version) > version_order(self.wanted.version) else frozenset()

    def _has_all(self, shard: ShardStatus, slots: Slots) -> bool:
        return slot_set(slots) <= self._slots_in(shard)

    def _lacking(self, held: Mapping[str, Slots]) -> dict[str, Slots]:
        """The shards that something must be prepared for, with the slots whose rows are not in."""
        return {
            name: ranges_of(slot_set(slots) - self._in[name])
            for name, slots in held.items()
            if not self._is_prepared(name, slots, self._in[name]) or not self._is_whole(name)
        }

    def _prepared(self, name: str) -> VersionIdentity | None:
        """What a shard's directory says of itself, whatever its slots are."""
        return self._identity(name, (), lambda _, __: True)

    def _is_prepared(self, name: str, slots: Slots, there: frozenset[int]) -> bool:
        """Whether the directory goes by exactly the slots that are missing; nothing needs none."""
        identity = self._prepared(name)
        return slot_set(slots) - there == (slot_set(identity.slots) - there if identity else frozenset())

    def _is_whole(self, name: str) -> bool:
        """Whether the files of all units that are missing lie there."""
        identity = self._prepared(name)
        if identity is None or self._manifest is None:
            return True  # nothing is missing
        missing, directory, there = slot_set(identity.slots) - self._in[name], self._directory(name), noted_files(self._directory(name))
        if there is None:
            return not missing
        names = {one for unit in ingest_units(self._manifest.files) if slot_set([unit.slots]) & missing for one in _names(unit)}
        return all((directory / there[one]).exists() for one in there.keys() & names)

    def _known(self, held: Mapping[str, Slots]) -> dict[str, VersionIdentity]:
        """What the directories count, as far as there are any."""
        found = {name: self._prepared(name) for name in held}
        return {name: identity for name, identity in found.items() if identity is not None}

    def _written_again(self, planned: Plan) -> int:
        """All of it once more: a live database sorts it into what is there."""
        return super()._written_again(planned) + planned.bytes

    def _directory(self, name: str) -> Path:
        return self._node.shard_paths(name).version(self.dataset, self.wanted.version).resolve()

    def _job(self, chain: Chain, trimmed: Mapping[str, Slots]) -> IngestJob:
        return replace(super()._job(chain, trimmed), upsert=True)


def _names(unit: IngestUnit) -> list[str]:
    return [PurePosixPath(file.object_key).name for file in unit.files]
