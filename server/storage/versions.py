"""Version directories: registered, opened, made active, pinned, closed. What the admin commands do.

Rules:
- A pointer (dataset, prefix, active version) is durable before readers see its effect; at start everything is as it was. Changes come one
  after the other (the callers hold `admin_lock`), because the disk is waited for in between.
- A directory that is missing or broken at start stops that dataset, not the shard.
- A directory of the same name may be replaced while its version is read: the opened one serves on, until it is activated again.
- A version is closed one turn of the event loop after nobody is meant to read it, and not before its last pin is gone: commands run to
  completion within a turn, so none is cut off.
- All but pin change nothing when repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

from pipeline.format.admin import DatasetStatus, VersionIdentity
from pipeline.format.crashpoints import ShardPoint, crash_point
from pipeline.format.errors import (
    FormatError,
    LiveKeysError,
    RedkvError,
    SlotsMovedError,
    UnknownVersionError,
    UsageError,
    VersionActiveError,
)
from pipeline.format.layout import IDENTITY_FILE, ShardPaths
from pipeline.format.records import DATASET_NAME, VERSION_ID
from server.storage.datasets import Dataset, DatasetIndex, OpenVersion, Stamp, lacking_slots, nothing
from server.storage.hotcache import HotCache
from server.storage.livekeys import live_keys_under
from server.storage.lookup import Clock
from server.storage.pointers import DatasetPointer, load_pointers, remove_pointer, save_pointer
from server.storage.readahead import read_ahead
from server.storage.rocks import BlockCache, Database

Defer = Callable[[Callable[[], None]], object]
"""Runs a function on the next turn of the event loop."""

MS_PER_S = 1_000
LIVE_KEYS_SHOWN_MAX = 10  # enough to recognise whose they are


class Versions:
    """The datasets of one shard and their version directories."""

    def __init__(
        self, live: Database, index: DatasetIndex, paths: ShardPaths, cache: BlockCache, hot: HotCache, clock: Clock, defer: Defer
    ) -> None:
        self._live = live
        self._index = index
        self._paths = paths
        self.cache = cache
        self._hot = hot
        self._clock = clock
        self._defer = defer
        self._log = structlog.get_logger("server.versions")

    def restore(self) -> None:
        """At start: register what was registered, and serve what was active. `follow` comes next."""
        for pointer in load_pointers(self._live):
            dataset = Dataset(pointer, nothing)
            self._index.add(dataset)
            if pointer.active is None:
                dataset.await_first()
                continue
            try:
                self._check_build(pointer)
                dataset.serve(self._open(dataset, pointer.active), frozenset())
            except RedkvError as failed:
                self._log.error("active version can't be opened", dataset=pointer.dataset, version=pointer.active, error=failed.message)
                dataset.refuse(f"could not be opened ({failed.message})")

    def _check_build(self, pointer: DatasetPointer) -> None:
        name, version = pointer.dataset, pointer.active or ""
        identity = _identity(self._paths.version(name, version), name, version)
        if identity.build_id != pointer.build_id:
            raise UnknownVersionError(f"holds build {identity.build_id}, build {pointer.build_id} was activated")

    def follow(self, held: frozenset[int]) -> None:
        """These are the shard's slots from now on, its own or its primary's: keys of those that an active version lacks are refused until
        it is made again.
        """
        for dataset in self._index.ordered:
            if dataset.active is not None:
                dataset.serve(dataset.active, held)
        self._index.changed()

    async def register(self, name: str, prefix: str) -> None:
        """Make a dataset own its prefix. Writes below it are refused at once; live keys are looked for beside the readers, who keep
        seeing them meanwhile.

        Raises:
            UsageError: a bad name, or an empty prefix, or a known dataset with another prefix.
            PrefixOverlapError: another dataset's prefix overlaps.
            LiveKeysError: clients' own keys stand under the prefix; nothing is registered.
        """
        if self._is_registered(name, prefix):
            return
        dataset = Dataset(DatasetPointer(dataset=name, prefix=prefix), self._live.get)
        self._index.add(dataset)
        try:
            await self._refuse_live_keys(dataset)
            crash_point(ShardPoint.REGISTERING)
            await save_pointer(self._live, dataset.pointer)
            crash_point(ShardPoint.REGISTERED)
        except BaseException:
            self._index.remove(name)
            raise
        dataset.await_first()
        self._index.changed(dataset)

    def _is_registered(self, name: str, prefix: str) -> bool:
        if not DATASET_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no dataset name; use {DATASET_NAME.pattern}", dataset=name)
        if not prefix:
            raise UsageError(f"dataset {name} needs a prefix that is not empty", dataset=name)
        known = self._index.by_name.get(name)
        if known is not None and known.pointer.prefix != prefix:
            raise UsageError(
                f"dataset {name} is registered with prefix {known.pointer.prefix!r}, not {prefix!r}; unregister it first", dataset=name
            )
        return known is not None

    async def _refuse_live_keys(self, dataset: Dataset) -> None:
        shown: list[str] = []
        for key in live_keys_under(self._live, dataset.prefix, self._clock()):
            if key is None:
                await asyncio.sleep(0)  # one turn of the loop for the readers
                continue
            shown.append(key.decode(errors="backslashreplace"))
            if len(shown) == LIVE_KEYS_SHOWN_MAX:
                break
        if shown:
            name, prefix = dataset.pointer.dataset, dataset.pointer.prefix
            raise LiveKeysError(
                f"live keys stand under prefix {prefix!r}, which dataset {name} wants to own, for instance {', '.join(shown)}; "
                "remove or rename them, or choose another prefix",
                dataset=name,
                prefix=prefix,
                keys=shown,
            )

    async def unregister(self, name: str) -> None:
        """Forget a dataset: close its versions, free its prefix.

        Raises:
            VersionActiveError: a version is active.
        """
        dataset = self._index.by_name.get(name)
        if dataset is None:
            return
        if dataset.pointer.active is not None:
            raise VersionActiveError(
                f"dataset {name} can't be unregistered while its version {dataset.pointer.active} is active", dataset=name
            )
        await remove_pointer(self._live, name)
        crash_point(ShardPoint.UNREGISTERED)
        self._index.remove(name)
        for opened in dataset.opened.values():
            self._retire(opened)

    def open(self, name: str, version: str) -> None:
        """Open a published directory, without making it active; anew, if another one stands there than when it was opened.

        Raises:
            UnknownVersionError: the dataset is not registered, or the directory is not there.
            FormatError: the directory does not say that it is this version.
        """
        self._open(self._dataset(name), version)
        crash_point(ShardPoint.OPENED)

    async def activate(self, name: str, version: str, held: Callable[[], frozenset[int]]) -> None:
        """Let clients read a version: its hot keys are read ahead, one durable write, then the swap. The version before is closed when its
        readers are done, and so is the same version's earlier directory, if another one was published in its place. `held` gives the slots
        of the shard, which may change meanwhile.

        Raises:
            UnknownVersionError: as for `open`.
            SlotsMovedError: the directory was made without some of the slots that this shard holds.
        """
        dataset = self._dataset(name)
        opened = self._open(dataset, version)
        _check_slots(opened, held())
        if dataset.active is opened:
            return
        try:
            await self._read_ahead(dataset, opened)
            await self._swap(dataset, opened, held)
        finally:
            self._hot.forget_prepared()

    async def _read_ahead(self, dataset: Dataset, opened: OpenVersion) -> None:
        began_s = monotonic()
        keys = await read_ahead(self._hot, dataset.prefix, opened.database, monotonic)
        name, version = dataset.pointer.dataset, opened.identity.version
        self._log.info("hot keys read ahead", dataset=name, version=version, keys=keys, ms=round((monotonic() - began_s) * MS_PER_S))

    async def _swap(self, dataset: Dataset, opened: OpenVersion, held: Callable[[], frozenset[int]]) -> None:
        _check_slots(opened, held())  # once more: they may be others since the reading began
        before = dataset.active
        pointer = dataset.pointer.model_copy(update={"active": opened.identity.version, "build_id": opened.identity.build_id})
        crash_point(ShardPoint.ACTIVATING)
        await save_pointer(self._live, pointer)
        crash_point(ShardPoint.ACTIVATED)
        dataset.pointer = pointer
        dataset.serve(opened, held())
        self._index.changed(dataset)
        if dataset.whole is opened:  # or keys of slots that it lacks, which moved here meanwhile, would be told absent
            self._hot.renew()
        if before is not None:
            if dataset.opened.get(before.identity.version) is before:
                del dataset.opened[before.identity.version]
            self._retire(before)

    async def expect(self, name: str, version: str | None) -> None:
        """Note durably which version clients shall read (None: none yet): keys are not told absent by a shard that has no version of them.

        Raises:
            UnknownVersionError: the dataset is not registered.
        """
        dataset = self._dataset(name)
        if dataset.pointer.expected == version:
            return
        pointer = dataset.pointer.model_copy(update={"expected": version})
        await save_pointer(self._live, pointer)
        crash_point(ShardPoint.EXPECTED)
        dataset.pointer = pointer
        if pointer.active is None:  # else its keys read as before
            dataset.await_first()
            self._index.changed(dataset)

    def close(self, name: str, version: str) -> None:
        """Close a directory, so that it can be removed; pinned readers keep their open files.

        Raises:
            VersionActiveError: clients read it.
        """
        dataset = self._index.by_name.get(name)
        if dataset is None:
            return
        if dataset.pointer.active == version and dataset.active is not None:  # one that can't be opened is read by nobody
            raise VersionActiveError(f"version {version} of {name} is active; activate another one first", dataset=name, version=version)
        opened = dataset.opened.pop(version, None)
        if opened is not None:
            self._retire(opened)
        crash_point(ShardPoint.CLOSED)

    def pin(self, name: str, version: str) -> OpenVersion:
        """An opened version that stays open until `unpin`.

        Raises:
            UnknownVersionError: it is not opened.
        """
        opened = self._dataset(name).opened.get(version)
        if opened is None:
            raise UnknownVersionError(f"version {version} of {name} is not opened; open it first", dataset=name, version=version)
        opened.pins += 1
        return opened

    def unpin(self, opened: OpenVersion) -> None:
        """Give a pin back."""
        opened.pins -= 1
        if opened.retired and not opened.pins:
            self._defer(lambda: self._close_unread(opened))

    def status(self) -> dict[str, DatasetStatus]:
        """All datasets."""
        return {
            name: DatasetStatus(
                prefix=one.pointer.prefix,
                active=one.pointer.active,
                active_build_id=one.pointer.build_id,
                opened=tuple(sorted(one.opened)),
                current=one.active is None or one.active.stamp == self._stamp(name, one.active.identity.version),
                expected=one.pointer.expected,
            )
            for name, one in self._index.by_name.items()
        }

    def close_all(self) -> None:
        """At the end: close every directory now."""
        for dataset in self._index.ordered:
            for opened in {*dataset.opened.values(), *((dataset.active,) if dataset.active else ())}:
                opened.database.close()

    def _dataset(self, name: str) -> Dataset:
        dataset = self._index.by_name.get(name)
        if dataset is None:
            raise UnknownVersionError(f"dataset {name} is not registered on this shard; register it first", dataset=name)
        return dataset

    def _open(self, dataset: Dataset, version: str) -> OpenVersion:
        name, before = dataset.pointer.dataset, dataset.opened.get(version)
        path = self._paths.version(name, version)
        stamp = self._stamp(name, version)  # first: one that is replaced meanwhile is opened once more next time, never taken for new
        if before is not None and before.stamp == stamp:
            return before
        identity = _identity(path, name, version)
        if stamp is None:
            raise UnknownVersionError(f"version {version} of {name} was just removed from this shard", dataset=name, version=version)
        opened = OpenVersion(identity, Database.open_version(path, self.cache), stamp)
        dataset.opened[version] = opened
        if before is not None and before is not dataset.active:
            self._retire(before)
        return opened

    def _stamp(self, name: str, version: str) -> Stamp | None:
        try:
            found = (self._paths.version(name, version) / IDENTITY_FILE).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _retire(self, opened: OpenVersion) -> None:
        opened.retired = True
        if not opened.pins:
            self._defer(lambda: self._close_unread(opened))

    @staticmethod
    def _close_unread(opened: OpenVersion) -> None:
        """Commands of the turn that retired it may have begun to read it since."""
        if not opened.pins and not opened.closed:
            opened.closed = True
            opened.database.close()


def _check_slots(opened: OpenVersion, held: frozenset[int]) -> None:
    missing = len(lacking_slots(held, opened.identity.slots))
    if missing:
        name, version = opened.identity.dataset, opened.identity.version
        raise SlotsMovedError(
            f"version {version} of {name} lacks {missing} of the {len(held)} slots that this shard holds: it is made again",
            dataset=name,
            version=version,
        )


def _identity(path: Path, name: str, version: str) -> VersionIdentity:
    if not VERSION_ID.fullmatch(version):
        raise UsageError(f"{version!r} is no version id", dataset=name, version=version)
    try:
        raw = (path / IDENTITY_FILE).read_bytes()
    except OSError as missing:
        raise UnknownVersionError(
            f"version {version} of {name} is not published on this shard: {path / IDENTITY_FILE} can't be read ({missing.strerror})",
            dataset=name,
            version=version,
        ) from missing
    identity = VersionIdentity.from_json(raw, str(path / IDENTITY_FILE))
    if (identity.dataset, identity.version) != (name, version):
        raise FormatError(f"{path} holds version {identity.version} of {identity.dataset}, not version {version} of {name}", path=str(path))
    return identity
