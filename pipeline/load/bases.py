"""The versions that a delta lies on: read from the store, each the one that is meant.

Rules:
- A base is named by its build and by the SHA-256 of its manifest. Another build under its id is told as such, and never taken.
- A chain has at most BASES_MAX bases, so that reads look into few files; then a full version is due.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.format.errors import BaseChangedError, BaseMissingError, ChainTooLongError, ObjectMissingError, UsageError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import BASES_MAX, BaseVersion, Manifest
from pipeline.format.records import version_order
from pipeline.spec import DatasetSpec
from pipeline.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Bases:
    """What a delta will lie on: the versions, the nearest first, and the manifest of that one."""

    versions: tuple[BaseVersion, ...]
    manifest: Manifest


def choose_base(store: ObjectStore, spec: DatasetSpec, version: str, base: str) -> Bases:
    """A version that a delta of `spec` named `version` can lie on.

    Raises:
        UsageError: it can't be that one.
        BaseMissingError: the store does not have it.
        ChainTooLongError: it lies on as many others as may be already.
    """
    dataset = spec.dataset
    key, fields = manifest_key(dataset, base), {"dataset": dataset, "version": version, "base": base}
    if spec.mode != "replace":
        message = f"dataset {dataset} is loaded in mode {spec.mode}, whose versions bring changes anyway: load it without a base"
        raise UsageError(message, **fields)
    if version_order(base) >= version_order(version):
        raise UsageError(f"{dataset} {version} can't lie on {base}, which is not older: name an older version as its base", **fields)
    try:
        data = store.get(key).data
    except ObjectMissingError as missing:
        message = f"{dataset} {base}, which {version} is to lie on, is not in the store: name another base, or load a full version"
        raise BaseMissingError(message, **fields) from missing
    manifest = Manifest.from_json(data, key)
    if (manifest.prefix, manifest.type) != (spec.prefix, spec.type):
        message = (
            f"{dataset} {base} holds {manifest.type} values under {manifest.prefix!r}, the spec makes {spec.type} values under "
            f"{spec.prefix!r}: load a full version"
        )
        raise UsageError(message, **fields)
    if len(manifest.bases) >= BASES_MAX:
        message = (
            f"{dataset} {base} lies on {len(manifest.bases)} versions already, the most that there may be: load {version} as a full version"
        )
        raise ChainTooLongError(message, **fields, bases=len(manifest.bases))
    own = BaseVersion(version=base, build_id=manifest.build_id, manifest_sha256=hashlib.sha256(data).hexdigest())
    return Bases((own, *manifest.bases), manifest)


def read_base(store: ObjectStore, dataset: str, version: str, base: BaseVersion) -> Manifest:
    """The manifest of a version that `version` lies on.

    Raises:
        BaseMissingError: it is not in the store.
        BaseChangedError: the store has another build of it.
    """
    key, fields = manifest_key(dataset, base.version), {"dataset": dataset, "version": version, "base": base.version}
    try:
        data = store.get(key).data
    except ObjectMissingError as missing:
        message = f"{dataset} {version} lies on {base.version} (build {base.build_id}), which is needed, and not in the store"
        raise BaseMissingError(f"{message}: load a full version", **fields, build_id=base.build_id) from missing
    manifest = Manifest.from_json(data, key)
    if hashlib.sha256(data).hexdigest() != base.manifest_sha256:
        message = (
            f"{dataset} {version} lies on {base.version} of build {base.build_id}, the store has build {manifest.build_id} of it by now: "
            f"build the delta again under a new id, or load a full version"
        )
        raise BaseChangedError(message, **fields, build_id=base.build_id, found=manifest.build_id)
    return manifest
