"""Whether a version may go before clients: pure comparisons of manifests and of what nodes report."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.format.errors import CountMismatchError, ShrunkVersionError
from pipeline.format.manifest import Manifest
from pipeline.load.status import VersionStatus

SHRINK_MIN = 0.5  # an upstream job that lost half its rows is likelier than a table that did


def verify(manifest: Manifest, nodes: Mapping[str, VersionStatus]) -> int:
    """Whether all shards together hold what the manifest promises; the number of sampled keys read back.

    Raises:
        CountMismatchError: they do not.
    """
    shards = [shard for node in nodes.values() for shard in node.shards.values()]
    found = {
        "keys": sum(one.keys for one in shards),
        "entries": sum(one.entries for one in shards),
        "samples": sum(node.samples_checked for node in nodes.values()),
    }
    promised = {"keys": manifest.totals.keys, "entries": manifest.totals.entries, "samples": len(manifest.samples)}
    for what, count in promised.items():
        if found[what] != count:
            parts = {name: _count(status, what) for name, status in nodes.items()}
            told = ", ".join(f"{name} {part}" for name, part in parts.items())
            message = (
                f"{manifest.dataset} {manifest.version}: all nodes report {found[what]} {what}, the manifest has {count} ({told}): "
                f"the version is not activated; look whether the topology changed meanwhile, and load it again"
            )
            raise CountMismatchError(message, what=what, found=found[what], promised=count, nodes=parts)
    return found["samples"]


def check_size(manifest: Manifest, before: Manifest) -> None:
    """Whether a version is not suspiciously small.

    Raises:
        ShrunkVersionError: it holds less than SHRINK_MIN of the rows of the version before.
    """
    rows, old = manifest.totals.stored_rows, before.totals.stored_rows
    if rows < SHRINK_MIN * old:
        message = (
            f"{manifest.dataset} {manifest.version} holds {rows} rows, the active version {before.version} holds {old}: look whether the "
            f"table is complete, and pass --allow-shrink if it is"
        )
        raise ShrunkVersionError(message, dataset=manifest.dataset, version=manifest.version, rows=rows, before=old)


def _count(status: VersionStatus, what: str) -> int:
    if what == "samples":
        return status.samples_checked
    return sum(shard.keys if what == "keys" else shard.entries for shard in status.shards.values())
