"""What a build of a delta does otherwise than that of a full version.

Rules:
- Without a table of changes in the spec, the version's source is compared with what its base holds (difference.py): what differs is built.
- With one, its rows are built, each key of them as a whole, and its deletes. What the version holds in all is then known to nodes alone.
- Either way, what is left out expires when it does in the base. So a moment of expiry can't count from the build.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.format.errors import SpecError
from pipeline.format.manifest import BaseVersion
from pipeline.load.bases import choose_base, read_base
from pipeline.spec import DatasetSpec
from pipeline.store import ObjectStore
from udtf.base import Base


@dataclass(frozen=True)
class Delta:
    """A delta to be built: from which rows, on which versions; `base` is what they are compared with, None for a table of changes."""

    spec: DatasetSpec
    bases: tuple[BaseVersion, ...]
    base: Base | None

    @classmethod
    def on(cls, store: ObjectStore, spec: DatasetSpec, version: str, base: str) -> Delta:
        """A delta of `version` on `base`.

        Raises:
            SpecError, UsageError: that can't be.
            BaseMissingError, BaseChangedError, ChainTooLongError: as named.
        """
        chosen = choose_base(store, spec, version, base)
        _check_ttl(spec, version, base)
        if spec.changes:
            return cls(spec.of_changes(), chosen.versions, None)
        chain = [chosen.manifest, *(read_base(store, spec.dataset, version, one) for one in chosen.versions[1:])]
        return cls(spec, chosen.versions, Base.of(store.root, chain))

    def check_base(self, store: ObjectStore, version: str) -> None:
        """Whether the base is still there, and the same.

        Raises:
            BaseMissingError, BaseChangedError: it is not.
        """
        read_base(store, self.spec.dataset, version, self.bases[0])


def _check_ttl(spec: DatasetSpec, version: str, base: str) -> None:
    """Whether a key that does not change keeps its moment of expiry in a full version, too."""
    if spec.ttl is None or spec.ttl.at:
        return
    if spec.changes:
        so = f"keys of {spec.dataset} that the changes do not name would expire as those of {base} do, though a full version renews them"
    else:
        so = f"every key of {spec.dataset} differs from what {base} holds"
    other = "" if spec.has_elements else ", or write ttl: {at: column}"  # keys of many rows can't have that
    message = f"field ttl counts from the build, so {so}: load {version} without a base{other}"
    raise SpecError(message, dataset=spec.dataset, version=version)
