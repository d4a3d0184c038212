"""`redkv gc`: what retention does not keep, and what no manifest names, is listed, and then leaves nodes and object store."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from pipeline.cli.output import Format, OutputOption, duration, print_json, size
from pipeline.format.audit import Action
from pipeline.format.desired import DesiredVersion
from pipeline.load.documents import ClusterDocuments, with_retained
from pipeline.load.garbage import AGE_MIN_S, Garbage, find_garbage
from pipeline.load.nodes import Nodes
from pipeline.load.removal import Pace, Surplus, delete_all, find_surplus, remove_surplus
from pipeline.load.retention import surplus_on_nodes
from pipeline.settings import ClusterSettings, load_settings
from pipeline.store import ObjectStore

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Found:
    """All that may go: versions from the nodes (by dataset), versions from the store, files of builds."""

    on_nodes: Sequence[tuple[str, DesiredVersion]]
    in_store: Sequence[Surplus]
    builds: Sequence[Garbage]

    @property
    def of_store(self) -> list[Surplus | Garbage]:
        """What leaves the store."""
        return [*self.in_store, *self.builds]

    @property
    def objects(self) -> int:
        """Objects of the store."""
        return sum(len(one.objects) for one in self.of_store)

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(one.bytes for one in self.of_store)

    def __bool__(self) -> bool:
        return bool(self.on_nodes or self.in_store or self.builds)


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False,
    older_than: Annotated[
        float, typer.Option(min=0.0, help="Hours since a build wrote last. A build that goes on is named by no manifest yet.")
    ] = AGE_MIN_S / _HOUR_S,
    output: OutputOption = Format.TEXT,
) -> None:
    """Remove versions that retention does not keep, and files that no manifest names: of failed builds and uncommitted task attempts.

    Everything is listed first. On a terminal, you are asked before anything goes.

    Example: redkv gc --dry-run
    """
    settings = load_settings(context.obj)
    documents = ClusterDocuments(ObjectStore(settings.store), settings.cluster, name=settings.author)
    found = find(settings, documents, older_than * _HOUR_S)
    if output is Format.TEXT:
        for line in lines(found, time.time()):
            typer.echo(line)
    kept: list[Surplus] = []
    go = bool(found) and not dry_run and (yes or output is Format.JSON or not sys.stdin.isatty() or typer.confirm("remove all of it?"))
    if go:
        kept = remove(settings, documents, found)
    if output is Format.JSON:
        print_json(as_json(found, kept, deleted=not dry_run))
    elif not found:
        typer.echo("no garbage")
    else:
        typer.echo(f"{'deleted' if go else 'found'} {found.objects} objects, {size(found.bytes)}")
        for one in kept:
            typer.echo(f"{one.dataset} {one.version} stays: a cluster shall hold it by now, or a delta lies on it", err=True)


def find(settings: ClusterSettings, documents: ClusterDocuments, age_min_s: float) -> Found:
    """All that may go now."""
    now_s = time.time()
    keep, store = settings.retention, documents.store
    on_nodes = [
        (name, one)
        for name, dataset in sorted(documents.desired().datasets.items())
        for one in dataset.versions
        if one.version in surplus_on_nodes(dataset, keep.nodes, documents.now_ms())
    ]
    in_store = list(find_surplus(store, keep.store, documents.now_ms()))
    gone = {(one.dataset, one.version) for one in in_store}
    builds = [one for one in find_garbage(store, now_s, age_min_s) if (one.dataset, one.version) not in gone]
    return Found(on_nodes, in_store, builds)


def remove(settings: ClusterSettings, documents: ClusterDocuments, found: Found) -> list[Surplus]:
    """Remove it, each dataset's part told in the audit trail before; what stays because a cluster began to want it."""
    pace = Pace(settings.retention.deletes_per_s)
    for dataset in sorted({name for name, _ in found.on_nodes}):
        documents.change(with_retained(dataset, settings.retention.nodes, documents.now_ms()), "gc")
    if found.on_nodes:
        with Nodes(documents.topology(), settings.sidecar_token) as nodes:
            nodes.wake()
    for dataset in sorted({one.dataset for one in found.of_store}):
        documents.trail.tell(Action.GC, dataset, documents.author, documents.now_ms(), detail=_told(dataset, found))
    kept = [one for one in reversed(found.in_store) if not remove_surplus(documents.store, one, pace)][::-1]  # deltas before their bases
    for one in found.builds:
        delete_all(documents.store, (file.key for file in one.objects), pace)
    return kept


def _told(dataset: str, found: Found) -> str:
    parts = [f"version {one.version}" for one in found.in_store if one.dataset == dataset]
    return ", ".join(parts + [f"build {one.build_id} of {one.version}" for one in found.builds if one.dataset == dataset])


def lines(found: Found, now_s: float) -> list[str]:
    """What may go, for people."""
    told = []
    for dataset, one in found.on_nodes:
        age = f"left {duration(now_s - one.retired_at_ms / 1000)} ago" if one.retired_at_ms else "never read"
        told.append(f"{dataset} {one.version} on the nodes: {age}")
    told += [
        f"{one.dataset} {one.version} in the store: {len(one.objects)} objects, {size(one.bytes)}, "
        f"built {duration(now_s - one.written_ms / 1000)} ago"
        for one in found.in_store
    ]
    told += [
        f"{one.dataset} {one.version} build {one.build_id}: {len(one.objects)} objects, {size(one.bytes)}, "
        f"last written {duration(now_s - one.modified_s)} ago"
        for one in found.builds
    ]
    return told


def as_json(found: Found, kept: Sequence[Surplus], *, deleted: bool) -> dict[str, object]:
    """The document of `--output json`: see docs/cli.md."""

    def objects(one: Surplus | Garbage) -> dict[str, object]:
        return {"objects": [file.key for file in one.objects], "bytes": one.bytes}

    return {
        "deleted": deleted,
        "nodes": [{"dataset": name, "version": one.version, "retired_at_ms": one.retired_at_ms} for name, one in found.on_nodes],
        "versions": [{"dataset": one.dataset, "version": one.version, "kept": one in kept, **objects(one)} for one in found.in_store],
        "builds": [{"dataset": one.dataset, "version": one.version, "build_id": one.build_id, **objects(one)} for one in found.builds],
    }
