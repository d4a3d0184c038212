"""A dataset that a benchmark loads one version of after the other: the same files each time, under another name and build."""

from __future__ import annotations

from bench._nodes import Cluster
from pipeline.format.desired import DesiredDataset, Goal
from pipeline.format.layout import manifest_key, new_build_id
from pipeline.format.records import Mode
from tests.support.versions import BuiltVersion

DAYS = 28  # of a month, whichever it is


class Loaded:
    """One dataset; `built` is its first version."""

    def __init__(self, name: str, prefix: str, mode: Mode, parts: Cluster, built: BuiltVersion) -> None:
        self.name, self.prefix, self.mode = name, prefix, mode
        self._parts = parts
        self._number = 0
        self._versions = [built]

    @property
    def version(self) -> str:
        """The name of the newest one."""
        return self._versions[-1].manifest.version

    def renew(self) -> None:
        """Store another version."""
        self._number += 1
        version = f"2026-{1 + self._number // DAYS:02d}-{1 + self._number % DAYS:02d}"
        manifest = self._versions[-1].manifest.model_copy(update={"version": version, "build_id": new_build_id()})
        data = manifest.to_json()
        self._parts.store.create(manifest_key(self.name, version), data)
        self._versions = [self._versions[-1], BuiltVersion.of(manifest, data)]

    def want(self, goal: Goal) -> None:
        """Write the goal of the newest version; the one before it is served until it is active."""
        *before, newest = self._versions
        goals = [one.wanted(Goal.RETIRED if goal is Goal.ACTIVE else Goal.ACTIVE) for one in before]
        wanted = DesiredDataset(prefix=self.prefix, mode=self.mode, versions=(*goals, newest.wanted(goal)))
        self._parts.head.add(self.name, wanted)
        self._parts.wake()
