"""Every object key and every path on a node, built and parsed in one place.

In the object store, below the store's root::

    datasets/<dataset>/versions/<version>/manifest.json
    datasets/<dataset>/versions/<version>/builds/<build-id>/<task>-<attempt>-<file>.sst
    clusters/<cluster>/desired.json
    clusters/<cluster>/topology.json

On a node::

    <node>/staging/<dataset>/<version>/<build-id>/<file>.sst     whole and verified; `.part` while it is downloaded
    <node>/sidecar.json                                          what this sidecar must remember
    <node>/sidecar.lock                                          locked by this node's one sidecar, and its ingest processes
    <shard>/live/                                                the live RocksDB
    <shard>/topology.json                                        the topology that the shard follows
    <shard>/admin.sock                                           the admin socket (a settings value, where paths are too long)
    <shard>/making/<dataset>@<version>@<build-id>/               a version directory before it is published
    <shard>/versions/<dataset>/<version>/                        published; holds VERSION.json and the RocksDB files

Staging, making and versions lie on one file system: what follows a download is links and renames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

DATASETS_ROOT = "datasets/"  # the common start of all that datasets have in the object store
IDENTITY_FILE = "VERSION.json"
SST_SUFFIX = ".sst"
PARTIAL_SUFFIX = ".part"


def new_build_id() -> str:
    """An id that no other build has."""
    return uuid4().hex


def parse_build_key(key: str) -> tuple[str, str, str] | None:
    """Dataset, version and build id of an object that a build wrote; None for any other object."""
    match key.split("/"):
        case ["datasets", dataset, "versions", version, "builds", build_id, _]:
            return dataset, version, build_id
    return None


def version_root(dataset: str, version: str) -> str:
    """The common start of all objects of one version."""
    return f"datasets/{dataset}/versions/{version}/"


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

    def unpublished(self, dataset: str, version: str, build_id: str) -> Path:
        """One version directory before it is published."""
        return self.making / f"{dataset}@{version}@{build_id}"
