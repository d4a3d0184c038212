"""The way back: which version clients may read instead of the one that they read, as pure functions of the desired state.

Rules:
- Only a version that clients read before, that nodes are still to hold, and that nobody marked bad, comes back by a swap.
- A rollback without a version goes to the newest of those that are older than the active one.
- A version that is brought back to nodes which lack it stays a way back, however far that came, until a newer one is activated.
- An `upsert` has no way back: its rows are in the live keys.
"""

from __future__ import annotations

from pipeline.format.desired import BadVersion, Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import BadVersionError, ConcurrentLoadError, NoWayBackError, UsageError
from pipeline.format.records import version_order

BAD_MARKS_MAX = 100  # per dataset: one a day for three months; what is older is not put over a newer version anyway


def dataset_of(desired: Desired, dataset: str) -> DesiredDataset:
    """A dataset that the cluster knows.

    Raises:
        UsageError: it does not.
    """
    found = desired.datasets.get(dataset)
    if found is None:
        known = ", ".join(sorted(desired.datasets)) or "none"
        raise UsageError(f"cluster {desired.cluster} has no dataset {dataset!r}: it has {known}", dataset=dataset)
    return found


def check_not_bad(desired: Desired, dataset: str, version: str) -> None:
    """Whether clients may read a version at all.

    Raises:
        BadVersionError: it was marked bad.
    """
    current = desired.datasets.get(dataset)
    mark = current.mark_of(version) if current else None
    if mark is not None:
        message = f"{dataset} {version} was marked bad by {mark.by}: build it again under a new id, or choose another version"
        raise BadVersionError(message, dataset=dataset, version=version, by=mark.by, at_ms=mark.at_ms)


def previous(current: DesiredDataset) -> DesiredVersion | None:
    """Where a rollback goes that names no version."""
    active = current.active
    if active is None or current.mode == "upsert":
        return None
    older = [one for one in current.versions if version_order(one.version) < version_order(active.version)]
    return next((one for one in reversed(older) if one.is_way_back and current.mark_of(one.version) is None), None)


def came_by_rollback(current: DesiredDataset) -> bool:
    """Whether the active version was put back over a newer one."""
    active = current.active
    left = max((one for one in current.versions if one.retired_at_ms is not None), key=lambda one: one.retired_at_ms or 0, default=None)
    return active is not None and left is not None and version_order(left.version) > version_order(active.version)


def choose(desired: Desired, dataset: str, version: str | None) -> DesiredVersion | None:
    """The version that clients shall read instead: the named one, or the previous one; None if a named one is not on the nodes.

    Raises:
        UsageError: no such dataset.
        BadVersionError: it was marked bad.
        NoWayBackError: the dataset is an `upsert`, or nothing is there to go back to, or it never came to its readers.
    """
    current = dataset_of(desired, dataset)
    if current.mode == "upsert":
        message = f"{dataset} is loaded in mode upsert, whose rows enter the live keys: there is nothing to go back to; load the right rows"
        raise NoWayBackError(message, dataset=dataset)
    if version is None:
        found = previous(current)
        if found is None:
            read = f"reads {current.active.version}" if current.active else "reads none yet"
            message = f"{dataset} {read}, and nodes hold no good version before it: see `redkv versions {dataset}`"
            raise NoWayBackError(message, dataset=dataset)
        return found
    check_not_bad(desired, dataset, version)
    found = current.find(version)
    if found is not None and found.goal in {Goal.STAGED, Goal.READY} and not found.is_way_back:
        message = f"{dataset} {version} is being loaded, clients never read it: `redkv load` it to its end"
        raise NoWayBackError(message, dataset=dataset, version=version)
    return found


def brought(desired: Desired, dataset: str, entry: DesiredVersion) -> Desired:
    """The desired state in which nodes bring a version that some of them, or all, do not hold; `entry` has the goal.

    Raises:
        BadVersionError: it was marked bad.
        ConcurrentLoadError: another build of it came meanwhile.
    """
    check_not_bad(desired, dataset, entry.version)
    current = dataset_of(desired, dataset)
    known = current.find(entry.version)
    if known is not None and known.build_id != entry.build_id:
        message = f"{dataset} {entry.version} is there from another build by now: see `redkv versions {dataset}`"
        raise ConcurrentLoadError(message, dataset=dataset, version=entry.version)
    if known is not None and known.goal in {entry.goal, Goal.READY, Goal.ACTIVE}:
        return desired
    return _with(desired, dataset, current, [*(one for one in current.versions if one.version != entry.version), entry])


def swapped(desired: Desired, dataset: str, version: str, left: str | None, bad: BadVersion | None = None) -> Desired:
    """The desired state in which clients read `version` instead of `left`, which is marked bad if a mark is given.

    Raises:
        BadVersionError: it was marked bad.
        ConcurrentLoadError: it is not there any more, or clients read another version than `left` by now.
    """
    check_not_bad(desired, dataset, version)
    current = dataset_of(desired, dataset)
    active = current.active.version if current.active else None
    if active == version:
        return desired
    if current.find(version) is None or active != left:
        what = f"clients read {active or 'none'} by now" if active != left else "nodes are not to hold it any more"
        message = f"{dataset} {version} can't be activated: {what}; see `redkv versions {dataset} --history`"
        raise ConcurrentLoadError(message, dataset=dataset, version=version, active=active)
    current = _marked(current, bad) if bad else current
    goals = {version: Goal.ACTIVE} | ({left: Goal.RETIRED} if left else {})
    goals = {one.version: Goal.RETIRED for one in current.versions if is_overtaken(one, version)} | goals
    versions = [_to(one, goals.get(one.version, one.goal)) for one in current.versions]
    return _with(desired, dataset, current, versions)


def is_overtaken(one: DesiredVersion, version: str) -> bool:
    """Whether a way back need not be brought to anybody any more once `version` is activated: that is newer."""
    return one.is_way_back and version_order(one.version) < version_order(version)


def cancelled(desired: Desired, dataset: str, version: str) -> Desired:
    """The desired state in which a way back is not brought to those that lack it any more."""
    current = dataset_of(desired, dataset)
    versions = [_to(one, Goal.RETIRED) if one.version == version and one.is_way_back else one for one in current.versions]
    return _with(desired, dataset, current, versions)


def marked(desired: Desired, dataset: str, mark: BadVersion) -> Desired:
    """The desired state in which a version is marked bad.

    Raises:
        NoWayBackError: clients read it.
    """
    current = dataset_of(desired, dataset)
    if current.active is not None and current.active.version == mark.version:
        message = f"clients read {dataset} {mark.version}: `redkv rollback {dataset} --mark-bad` leaves it and marks it at once"
        raise NoWayBackError(message, dataset=dataset, version=mark.version)
    return desired if current.mark_of(mark.version) else _with(desired, dataset, _marked(current, mark), list(current.versions))


def stamped(before: Desired, after: Desired, at_ms: int) -> Desired:
    """The document with the moment at every version that it retires."""
    datasets = {}
    for name, dataset in after.datasets.items():
        old = before.datasets.get(name)
        versions = [_stamped(one, old.find(one.version) if old else None, at_ms) for one in dataset.versions]
        datasets[name] = dataset.model_copy(update={"versions": tuple(versions)})
    return after.model_copy(update={"datasets": datasets})


def _stamped(one: DesiredVersion, known: DesiredVersion | None, at_ms: int) -> DesiredVersion:
    if one.goal is Goal.ACTIVE:
        return one.model_copy(update={"retired_at_ms": None})
    was_active = known is not None and known.goal is Goal.ACTIVE
    return one.model_copy(update={"retired_at_ms": at_ms}) if one.goal is Goal.RETIRED and was_active else one


def _marked(current: DesiredDataset, mark: BadVersion) -> DesiredDataset:
    return current.model_copy(update={"bad": (*current.bad, mark)[-BAD_MARKS_MAX:]})


def _to(one: DesiredVersion, goal: Goal) -> DesiredVersion:
    return one if one.goal is goal else one.model_copy(update={"goal": goal})


def _with(desired: Desired, dataset: str, current: DesiredDataset, versions: list[DesiredVersion]) -> Desired:
    in_order = tuple(sorted(versions, key=lambda one: version_order(one.version)))
    return desired.model_copy(update={"datasets": {**desired.datasets, dataset: current.model_copy(update={"versions": in_order})}})
