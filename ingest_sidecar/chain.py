"""The versions that a delta lies on, as a node needs them: which shard begins where, and which files are to be fetched for that.

Rules:
- A shard begins with a copy of the nearest base that it holds in a directory made for its very slots. One that holds none, or has gained
  slots, begins with the files of the full version at the end of the chain. Whatever lies between there and the delta is laid over.
- A directory that does not say which SHA-256 all of its files have is none to begin with: they could not be checked.
- A base is the one that the delta's manifest names, by build and by the SHA-256 of its manifest: another build under its id is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest_sidecar.disk import noted_sha256
from ingest_sidecar.job import IngestBase, IngestFile
from ingest_sidecar.notes import published, sources
from ingest_sidecar.plan import Plan, Slots, exact, plan
from pipeline.format.errors import FormatError
from pipeline.format.layout import ShardPaths, build_root
from pipeline.format.manifest import BaseVersion, Manifest


@dataclass(frozen=True, slots=True)
class Layer:
    """One version of a chain: what shards need of its files, and the folder where these are staged."""

    manifest: Manifest
    folder: Path
    plan: Plan

    def files_of(self, shard: str) -> tuple[IngestFile, ...]:
        """The staged files of one shard."""
        files = {one.name: one.file for one in self.plan.files}
        return tuple(IngestFile.of(self.folder / name, files[name]) for name in self.plan.shards[shard][1])


@dataclass(frozen=True, slots=True)
class Chain:
    """`layers` are the versions of which something is needed, the delta itself first; `starts` says with which base's directory a shard
    begins, None with the files of the full version.
    """

    layers: tuple[Layer, ...]
    starts: Mapping[str, IngestBase | None]

    @property
    def files(self) -> int:
        """How many files are needed."""
        return sum(len(one.plan.files) for one in self.layers)

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(one.plan.bytes for one in self.layers)

    def of(self, shard: str) -> tuple[tuple[IngestFile, ...], tuple[tuple[IngestFile, ...], ...]]:
        """What a shard begins with, if that is no directory, and what is laid over, in order."""
        mine = [one.files_of(shard) for one in self.layers if shard in one.plan.shards][::-1]
        if self.starts[shard] is None:
            return mine[0], tuple(mine[1:])
        return (), tuple(mine)


def chain_of(
    manifest: Manifest,
    held: Mapping[str, Slots],
    bases: Mapping[str, tuple[int, IngestBase]],
    folder: Callable[[str], Path],
    read: Callable[[BaseVersion], Manifest],
) -> Chain:
    """What a node needs of a version for shards and their slots. `bases` are the directories that they can begin with, each with its place
    in the chain (1: the version that the delta lies on); `folder` gives the one that a build is staged in, `read` a base's manifest.

    Raises:
        FormatError: the chain's manifests do not agree.
    """
    last = len(manifest.bases)
    depth = {shard: bases[shard][0] - 1 if shard in bases else last for shard in held}
    layers = [Layer(manifest, folder(manifest.build_id), plan(manifest, held))]
    for place, base in enumerate(manifest.bases[: max(depth.values(), default=0)], 1):
        found = read(base)
        if (found.dataset, found.prefix, found.bases) != (manifest.dataset, manifest.prefix, manifest.bases[place:]):
            message = f"{manifest.dataset} {manifest.version} and its base {base.version} do not agree on what they lie on"
            raise FormatError(message, dataset=manifest.dataset, version=manifest.version, base=base.version)
        needed = {shard: slots for shard, slots in held.items() if depth[shard] >= place}
        layers.append(Layer(found, folder(base.build_id), plan(found, needed)))
    return Chain(tuple(layers), {shard: bases[shard][1] if shard in bases else None for shard in held})


def base_of(paths: ShardPaths, dataset: str, bases: Sequence[BaseVersion], slots: Slots) -> tuple[int, IngestBase] | None:
    """The nearest base that a shard holds in a directory made for these slots, and its place in the chain."""
    for place, base in enumerate(bases, 1):
        identity = published(paths, dataset, base.version)
        if identity is None or (identity.build_id, identity.manifest_sha256) != (base.build_id, base.manifest_sha256):
            continue
        directory = paths.version(dataset, base.version).resolve()
        noted = noted_sha256(directory)
        if exact(slots, identity.slots) and None not in noted.values():
            originals = _originals(base.build_id, sources(directory))
            roots = {one.build_id: build_root(dataset, one.version, one.build_id) for one in bases}
            objects = {inside: roots[build] + name for inside, (build, _, name) in ((i, n.partition("/")) for i, n in originals.items())}
            size = sum((directory / name).stat().st_size for name in noted)
            return place, IngestBase(directory, base.build_id, size, originals, objects)
    return None


def _originals(build_id: str, noted: Mapping[str, str]) -> dict[str, str]:
    """The files of a base's directory as a delta's directory names them: each with its build."""
    return {inside: name if "/" in name else f"{build_id}/{name}" for inside, name in noted.items()}
