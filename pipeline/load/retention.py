"""Which versions are kept, on nodes and in the store: pure, the caller brings the time.

Rules:
- Of what nodes hold, the retired versions are judged, newest retirement first; a bad one counts for nothing and protects none.
- What is being brought back to nodes that lack it is nobody's to take, until that is cancelled, or a newer version activated.
- Of what the store holds, all versions of a dataset are judged, newest first; what any cluster shall hold stays.
- What a kept delta lies on stays in the store; nodes need it no more, as links keep what a delta took of it.
- What is kept neither by number nor by age still waits for the delay.
- Versions that were overtaken before clients ever read them, and retired ones of an `upsert`, hold nothing that anybody could go back to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pipeline.format.desired import DesiredDataset, Goal
from pipeline.format.records import version_order
from pipeline.settings import Keep

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A finished version in the store, and when its manifest was written there."""

    dataset: str
    version: str
    written_ms: int


def surplus_on_nodes(current: DesiredDataset, keep: Keep, now_ms: int) -> set[str]:
    """The versions that nodes need hold no longer; none before clients read one."""
    active = current.active
    if active is None:
        return set()
    order = version_order(active.version)
    surplus = {one.version for one in current.versions if not one.is_way_back and version_order(one.version) < order}
    retired = [one for one in current.versions if one.is_way_back]
    if current.mode == "upsert":
        return surplus | {one.version for one in retired}
    retired.sort(key=lambda one: (one.retired_at_ms or 0, version_order(one.version)), reverse=True)
    good = [one.version for one in retired if current.mark_of(one.version) is None]
    for one in retired:
        age_ms = now_ms - (one.retired_at_ms or 0)
        brought = one.goal is not Goal.RETIRED
        kept = one.version in good and (brought or _keeps(keep, good.index(one.version), age_ms))
        if not kept and age_ms >= keep.delay_hours * _HOUR_MS:
            surplus.add(one.version)
    return surplus


def surplus_in_store(
    versions: Iterable[StoredVersion],
    wanted: AbstractSet[tuple[str, str]],
    keep: Keep,
    now_ms: int,
    bases: Callable[[StoredVersion], Collection[str]] = lambda _: (),
) -> list[StoredVersion]:
    """Of one dataset's versions those that may go, oldest first; `wanted` are what clusters shall hold, `bases` says what a delta lies on,
    all of it down to the full version.
    """
    newest_first = sorted(versions, key=lambda one: version_order(one.version), reverse=True)
    surplus = []
    for place, one in enumerate(newest_first):
        age_ms = now_ms - one.written_ms
        if (one.dataset, one.version) not in wanted and not _keeps(keep, place, age_ms) and age_ms >= keep.delay_hours * _HOUR_MS:
            surplus.append(one)
    if not surplus:
        return []
    needed = {base for one in newest_first if one not in surplus for base in bases(one)}
    return [one for one in surplus[::-1] if one.version not in needed]


def _keeps(keep: Keep, place: int, age_ms: int) -> bool:
    if keep.versions is None and keep.days is None:
        return True
    return (keep.versions is not None and place < keep.versions) or (keep.days is not None and age_ms < keep.days * _DAY_MS)
