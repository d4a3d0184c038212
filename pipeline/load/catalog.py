"""What versions a dataset has, and where each of them is: manifests in the store, the desired state, and what the nodes say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.format.desired import Desired
from pipeline.format.errors import SpecError, UsageError
from pipeline.format.layout import versions_root
from pipeline.format.manifest import Manifest
from pipeline.format.records import version_order
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Answer
from pipeline.load.status import NodeStatus
from pipeline.load.wayback import previous
from pipeline.spec import parse_spec


@dataclass(frozen=True, slots=True)
class NodeVersion:
    """A version on a node: its state, `no answer` or `absent`, and the error that it is in, if it is in one."""

    state: str
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """A version. `mark` is active, previous (where a rollback goes), bad, or empty. What only its manifest tells is None if the store does
    not have it; `source` is the table, `filter` says which part of it, `base` on which version a delta lies.
    """

    version: str
    mark: str
    goal: str | None
    in_store: bool
    build_id: str | None
    built_at_ms: int | None
    source: str | None
    filter: str | None
    base: str | None
    rows: int | None
    keys: int | None
    bytes: int | None
    bad_by: str | None
    retired_at_ms: int | None
    nodes: Mapping[str, NodeVersion]


def catalog(documents: ClusterDocuments, desired: Desired, dataset: str, answers: Mapping[str, Answer]) -> list[CatalogVersion]:
    """All versions of a dataset that the store, the cluster or a mark knows, oldest first.

    Raises:
        UsageError: there is no such dataset.
    """
    current = desired.datasets.get(dataset)
    stored = set(documents.store.folders(versions_root(dataset)))
    names = stored.copy()
    if current is not None:
        names |= {one.version for one in current.versions} | {one.version for one in current.bad}
    if not names:
        known = ", ".join(sorted(desired.datasets)) or "none"
        raise UsageError(f"neither the cluster nor the store has a dataset {dataset!r}: the cluster has {known}", dataset=dataset)
    told = (_version(documents, desired, dataset, name, answers, stored=name in stored) for name in sorted(names, key=version_order))
    return [one for one in told if one.in_store or one.goal or one.mark]


def _version(
    documents: ClusterDocuments, desired: Desired, dataset: str, version: str, answers: Mapping[str, Answer], *, stored: bool
) -> CatalogVersion:
    current = desired.datasets.get(dataset)
    entry = current.find(version) if current else None
    bad = current.mark_of(version) if current else None
    found = documents.manifest(dataset, version) if stored else None
    manifest = found[0] if found else None
    source, part = _source(manifest)
    return CatalogVersion(
        version=version,
        mark=_mark(desired, dataset, version),
        goal=str(entry.goal) if entry else None,
        in_store=manifest is not None,
        build_id=entry.build_id if entry else manifest.build_id if manifest else None,
        built_at_ms=manifest.built_at_ms if manifest else None,
        source=source,
        filter=part,
        base=manifest.bases[0].version if manifest and manifest.bases else None,
        rows=manifest.totals.source_rows if manifest else None,
        keys=manifest.in_all.keys if manifest and manifest.in_all else None,
        bytes=manifest.totals.bytes if manifest else None,
        bad_by=bad.by if bad else None,
        retired_at_ms=entry.retired_at_ms if entry else None,
        nodes={name: _on_node(answer, dataset, version) for name, answer in answers.items()},
    )


def _mark(desired: Desired, dataset: str, version: str) -> str:
    current = desired.datasets.get(dataset)
    if current is None:
        return ""
    if current.active is not None and current.active.version == version:
        return "active"
    if current.mark_of(version) is not None:
        return "bad"
    back = previous(current)
    return "previous" if back is not None and back.version == version else ""


def _source(manifest: Manifest | None) -> tuple[str | None, str | None]:
    """Table and filter, if the manifest's spec is one that this software reads."""
    if manifest is None:
        return None, None
    try:
        spec = parse_spec(manifest.spec, "the manifest's spec")
        source = (spec.of_changes() if manifest.bases else spec).source
    except SpecError:
        return None, None  # built by other software: what it holds is told all the same
    return source.table, source.filter_for(manifest.version)


def _on_node(answer: Answer, dataset: str, version: str) -> NodeVersion:
    if not isinstance(answer, NodeStatus):
        return NodeVersion("no answer")
    found = answer.find(dataset, version)
    return NodeVersion(str(found.state), found.error) if found else NodeVersion("absent")
