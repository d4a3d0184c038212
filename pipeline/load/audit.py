"""The audit trail of a cluster: what a change of the desired state did, and the records in the store.

Rules:
- What a change did is told by comparing the document with the one before, so nothing that changes it can stay untold.
- A record of a change is in the document itself until the next writer has stored it (pipeline/format/audit.py), so history is those
  objects and what the document says.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from pipeline.format.audit import Action, AuditRecord, audit_id
from pipeline.format.desired import BadVersion, Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import ConflictError, OutcomeUnknownError
from pipeline.format.layout import audit_key, audit_root
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 3  # of one record whose answer got lost: the store is in trouble then
READS_AT_ONCE = 8  # of records, which are small: latency counts, not bandwidth


def author(name: str = "") -> str:
    """Who acts: the name that was given, or user@host."""
    return name or f"{getpass.getuser()}@{socket.gethostname()}"


def deeds(before: Desired, after: Desired, by: str, at_ms: int, why: str = "") -> tuple[AuditRecord, ...]:
    """What the step from one document to the next did, dataset by dataset."""
    records: list[AuditRecord] = []
    for dataset in sorted(before.datasets.keys() | after.datasets.keys()):
        old, new = before.datasets.get(dataset), after.datasets.get(dataset)
        for action, one, left in _steps(old, new):
            name = f"e{after.epoch}-{len(records)}"
            records.append(
                AuditRecord(
                    id=audit_id(at_ms, name),
                    at_ms=at_ms,
                    by=by,
                    action=action,
                    dataset=dataset,
                    version=one.version,
                    build_id=one.build_id,
                    epoch=after.epoch,
                    before=left,
                    detail=why,
                )
            )
    return tuple(records)


def build_record(manifest: Manifest, by: str) -> AuditRecord:
    """The record of a build: the same one whoever tells it, so that it is stored once."""
    return AuditRecord(
        id=audit_id(manifest.built_at_ms, manifest.build_id),
        at_ms=manifest.built_at_ms,
        by=by,
        action=Action.BUILD,
        dataset=manifest.dataset,
        version=manifest.version,
        build_id=manifest.build_id,
        detail=f"{manifest.totals.source_rows} rows, {manifest.totals.bytes} bytes",
    )


class Trail:
    """The records of one cluster in the store."""

    def __init__(self, store: ObjectStore, cluster: str) -> None:
        self._store, self._cluster = store, cluster

    def keep(self, records: Iterable[AuditRecord]) -> None:
        """Store records; those that are there stay as they are.

        Raises:
            StoreError: the store refused; a repetition stores what is missing.
        """
        for one in records:
            self._keep(one)

    def _keep(self, record: AuditRecord) -> None:
        for left in reversed(range(ATTEMPTS_MAX)):
            try:
                self._store.create(audit_key(self._cluster, record.dataset, record.id), record.to_json())
                return
            except ConflictError:
                return  # an id belongs to one deed: it was stored before, perhaps by the attempt whose answer got lost
            except OutcomeUnknownError:
                if not left:
                    raise

    def tell(self, action: Action, dataset: str, by: str, at_ms: int, *, version: str | None = None, detail: str = "") -> None:
        """Store the record of something that is about to be done, and does not change the desired state."""
        name = audit_id(at_ms, uuid4().hex)
        self.keep([AuditRecord(id=name, at_ms=at_ms, by=by, action=action, dataset=dataset, version=version, detail=detail)])

    def history(self, dataset: str, desired: Desired, last: int) -> list[AuditRecord]:
        """The newest `last` records of a dataset, oldest first, those included that only the desired state has yet."""
        unstored = {one.id: one for one in desired.audit if one.dataset == dataset}
        root = audit_root(self._cluster, dataset)
        stored = {one.key.removeprefix(root).removesuffix(".json"): one.key for one in self._store.list(root)}
        names = sorted(stored.keys() | unstored.keys())[-last:]
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            return list(pool.map(lambda name: unstored.get(name) or self._read(stored[name]), names))

    def _read(self, key: str) -> AuditRecord:
        return AuditRecord.from_json(self._store.get(key).data, key)


def _steps(old: DesiredDataset | None, new: DesiredDataset | None) -> Iterator[tuple[Action, DesiredVersion | BadVersion, str | None]]:
    """What was done to each version; for an activation, with the version that clients read until then."""
    versions = {one.version: one for one in old.versions} if old else {}
    left = old.active.version if old and old.active else None
    for one in new.versions if new else ():
        known = versions.pop(one.version, None)
        if known is None or known.build_id != one.build_id or (known.goal is Goal.RETIRED and one.goal in {Goal.STAGED, Goal.READY}):
            yield Action.LOAD, one, None
        elif one.goal is Goal.RETIRED and known.goal in {Goal.STAGED, Goal.READY}:
            yield Action.CANCEL, one, None
        if one.goal is Goal.ACTIVE and (known is None or known.goal is not Goal.ACTIVE):
            back = left is not None and version_order(one.version) < version_order(left)
            yield Action.ROLLBACK if back else Action.ACTIVATE, one, left
    marked = {one.version for one in old.bad} if old else set()
    for mark in new.bad if new else ():
        if mark.version not in marked:
            yield Action.MARK_BAD, mark, None
    for gone in versions.values():
        yield Action.RETIRE if gone.is_way_back else Action.CANCEL, gone, None
