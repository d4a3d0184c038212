"""How far one version is on this node: counters that work updates from any thread, and the status made from them.

The rate is that of the last RATE_WINDOW_S, so that an ETA follows what the store does now.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from pipeline.format.admin import Applied, VersionIdentity
from pipeline.format.crashpoints import crash_point
from pipeline.format.errors import RedkvError
from pipeline.load.states import Event, State, after
from pipeline.load.status import ShardVersion, VersionStatus

RATE_WINDOW_S = 5.0


def sidecar_point(state: State, event: Event) -> str:
    """The crash point of a transition: what the step did is done, and nothing that follows."""
    return f"sidecar.{state}.{event}"


@dataclass(eq=False)
class Progress:
    """One version on this node. The state changes only by `apply`, along the transition table."""

    version: str
    build_id: str
    clock: Callable[[], float] = time.monotonic
    state: State = State.ABSENT
    step: str = ""
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    samples_checked: int = 0
    samples_changed: int = 0
    shards: dict[str, ShardVersion] = field(default_factory=dict)
    error: RedkvError | None = None
    paused: bool = False
    activated_ms: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _moved: float = 0.0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._moved = self.clock()

    def apply(self, event: Event) -> None:
        """Take a step of the state machine."""
        next_state = after(self.state, event)
        crash_point(sidecar_point(self.state, event))
        with self._lock:
            self.state = next_state
            self._moved = self.clock()

    def at(self, step: str) -> None:
        """Say what is being done."""
        with self._lock:
            self.step = step
            self._moved = self.clock()

    def plan(self, files: int, total: int) -> None:
        """Set what there is to do."""
        with self._lock:
            self.files_total, self.bytes_total = files, total
            self.files_done = self.bytes_done = 0
            self._recent.clear()

    def add_bytes(self, count: int) -> None:
        """Count staged bytes; negative when some had to be thrown away."""
        with self._lock:
            now = self.clock()
            self.bytes_done += count
            self._recent.append((now, count))
            while self._recent[0][0] < now - RATE_WINDOW_S:
                self._recent.popleft()
            self._moved = now

    def add_file(self) -> None:
        """Count a staged file."""
        with self._lock:
            self.files_done += 1

    def hold(self, identities: dict[str, VersionIdentity]) -> None:
        """Note what the shards hold."""
        with self._lock:
            self.shards = {name: _held(one) for name, one in identities.items()}

    def status(self) -> VersionStatus:
        """A snapshot."""
        with self._lock:
            now = self.clock()
            rate = self._rate(now)
            left = self.bytes_total - self.bytes_done
            return VersionStatus(
                version=self.version,
                build_id=self.build_id,
                state=self.state,
                step=self.step,
                files_done=self.files_done,
                files_total=self.files_total,
                bytes_done=self.bytes_done,
                bytes_total=self.bytes_total,
                rate=rate,
                eta_s=left / rate if rate > 0 else None,
                idle_s=now - self._moved,
                samples_checked=self.samples_checked,
                samples_changed=self.samples_changed,
                shards=self.shards,
                error=self.error.to_json() if self.error else None,
                paused=self.paused,
                activated_ms=dict(self.activated_ms),
            )

    def _rate(self, now: float) -> float:
        recent = [(at, count) for at, count in self._recent if at >= now - RATE_WINDOW_S]
        if not recent:
            return 0.0
        return max(0.0, sum(count for _, count in recent) / max(now - recent[0][0], 1.0))


def _held(one: VersionIdentity) -> ShardVersion:
    if one.lost_changes:
        return ShardVersion(keys=one.keys, entries=one.entries, deletes=None, applied_keys=None, applied_entries=None)
    applied = one.applied or Applied(keys=0, entries=0)
    return ShardVersion(keys=one.keys, entries=one.entries, deletes=one.deletes, applied_keys=applied.keys, applied_entries=applied.entries)
