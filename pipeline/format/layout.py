"""Every object key and every path on a node, built and parsed in one place.

In the object store, below the store's root::

    datasets/<dataset>/versions/<version>/manifest.json
    datasets/<dataset>/versions/<version>/builds/<build-id>/<task>-<attempt>-<file>.sst
    clusters/<cluster>/desired.json
    clusters/<cluster>/topology.json
    clusters/<cluster>/queue.json
    clusters/<cluster>/audit/<dataset>/<id>.json

On a node::

    <node>/removed/<token>/<build-id>/                           staged files that nobody wants any more, while they go at a pace
    <node>/staging/<dataset>/<version>/<build-id>/<file>.sst     whole and verified; while it is downloaded `.part`, beside `.etag`
    <node>/sidecar.json                                          what this sidecar must remember
    <node>/sidecar.lock                                          locked by this node's one sidecar, and its ingest processes
    <shard>/live/                                                the live RocksDB
    <shard>/topology.json                                        the topology that the shard follows
    <shard>/admin.sock                                           the admin socket (a settings value, where paths are too long)
    <shard>/making/<dataset>@<version>@<build-id>/               a version directory before it is published
    <shard>/versions/<dataset>/<version>/                        published; holds VERSION.json, SOURCES.json, the RocksDB files; of an
                                                                 `upsert` FILES.json, and SST files that go to the live RocksDB

Staging, making and versions lie on one file system: what follows a download is links and renames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

DATASETS_ROOT = "datasets/"  # the common start of all that datasets have in the object store
IDENTITY_FILE = "VERSION.json"
SOURCES_FILE = "SOURCES.json"
FILES_FILE = "FILES.json"
SST_SUFFIX = ".sst"
PARTIAL_SUFFIX = ".part"
ETAG_SUFFIX = ".etag"


def new_build_id() -> str:
    """An id that no other build has."""
    return uuid4().hex


def parse_build_key(key: str) -> tuple[str, str, str] | None:
    """Dataset, version and build id of an object that a build wrote; None for any other object."""
    match key.split("/"):
        case ["datasets", dataset, "versions", version, "builds", build_id, _]:
            return dataset, version, build_id
    return None


def versions_root(dataset: str) -> str:
    """The common start of all versions of a dataset."""
    return f"datasets/{dataset}/versions/"


def version_root(dataset: str, version: str) -> str:
    """The common start of all objects of one version."""
    return f"{versions_root(dataset)}{version}/"


def manifest_key(dataset: str, version: str) -> str:
    """The object key of a version's manifest."""
    return version_root(dataset, version) + "manifest.json"


def build_root(dataset: str, version: str, build_id: str) -> str:
    """The common start of all files of one build."""
    return f"{version_root(dataset, version)}builds/{build_id}/"


def sst_key(dataset: str, version: str, build_id: str, task: int, attempt: str, index: int) -> str:
    """The object key of one SST file; `attempt` is unique per task attempt, `index` counts that attempt's files."""
    return f"{build_root(dataset, version, build_id)}{task:05d}-{attempt}-{index:03d}{SST_SUFFIX}"


def desired_key(cluster: str) -> str:
    """The object key of a cluster's desired state."""
    return f"clusters/{cluster}/desired.json"


def topology_key(cluster: str) -> str:
    """The object key of a cluster's topology."""
    return f"clusters/{cluster}/topology.json"


def queue_key(cluster: str) -> str:
    """The object key of a cluster's queue of loads."""
    return f"clusters/{cluster}/queue.json"


def clusters_root() -> str:
    """The common start of all clusters' documents."""
    return "clusters/"


def audit_root(cluster: str, dataset: str) -> str:
    """The common start of a dataset's audit records on a cluster."""
    return f"clusters/{cluster}/audit/{dataset}/"


def audit_key(cluster: str, dataset: str, record_id: str) -> str:
    """The object key of one audit record."""
    return f"{audit_root(cluster, dataset)}{record_id}.json"


@dataclass(frozen=True)
class NodePaths:
    """The paths of a node's sidecar."""

    root: Path

    @property
    def staging(self) -> Path:
        """All staged files."""
        return self.root / "staging"

    def staged_build(self, dataset: str, version: str, build_id: str) -> Path:
        """The staged files of one build."""
        return self.staging / dataset / version / build_id

    @property
    def removed(self) -> Path:
        """Staged files that nobody wants any more; they go at a pace."""
        return self.root / "removed"

    @property
    def memory(self) -> Path:
        """What the sidecar must remember over a restart."""
        return self.root / "sidecar.json"

    @property
    def lock(self) -> Path:
        """Locked by whoever may change what is unpublished on this node."""
        return self.root / "sidecar.lock"


@dataclass(frozen=True)
class ShardPaths:
    """The paths of one shard."""

    root: Path

    @property
    def live(self) -> Path:
        """The live RocksDB."""
        return self.root / "live"

    @property
    def topology(self) -> Path:
        """The topology that the shard follows, kept there by the sidecar."""
        return self.root / "topology.json"

    @property
    def versions(self) -> Path:
        """All published version directories."""
        return self.root / "versions"

    def version(self, dataset: str, version: str) -> Path:
        """One published version directory."""
        return self.versions / dataset / version

    @property
    def making(self) -> Path:
        """Everything unpublished; all of it can be deleted."""
        return self.root / "making"

    @property
    def scratch(self) -> Path:
        """Files of the shard's own that nobody misses after a crash."""
        return self.root / "scratch"

    def unpublished(self, dataset: str, version: str, build_id: str) -> Path:
        """One version directory before it is published."""
        return self.making / f"{dataset}@{version}@{build_id}"
