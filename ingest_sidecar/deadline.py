"""The floor under the pace of work: how far readers may slow down a version whose spec has a deadline. Pure.

Rules:
- The deadline is so many minutes after the build. Until then, the floor is the share of full speed that the work left needs.
- It is never below FLOOR_MIN, so that such a version always moves, and never above FLOOR_MAX: also when the deadline is missed, the
  readers keep half of what they need.
- A version without a deadline, or with nothing left to do, asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOOR_MIN = 0.05
FLOOR_MAX = 0.5
CHECK_BYTES_S = 50e6  # an ingest process reads twice as fast where it may; half of that is left for its links, syncs and samples
DEADLINE = "deadline_minutes"  # of the spec, as the manifest carries it

_MS_PER_MINUTE = 60_000


def deadline_ms(spec: Mapping[str, Any], built_at_ms: int) -> int | None:
    """When a version shall be ready, in milliseconds since the epoch; None if nobody says."""
    minutes = spec.get(DEADLINE)
    return None if minutes is None else built_at_ms + int(minutes) * _MS_PER_MINUTE


def floor(deadline: int | None, now_ms: float, work_s: float, check_bytes: int = 0) -> float:
    """The slowest pace; `work_s` are the seconds that the downloads left, or the units of an upsert, take at full speed, `check_bytes` is
    what is to be checked after downloads.
    """
    left_s = work_s + check_bytes / CHECK_BYTES_S
    if deadline is None or left_s <= 0:
        return 0.0
    time_left_s = (deadline - now_ms) / 1000
    return FLOOR_MAX if time_left_s <= 0 else min(FLOOR_MAX, max(FLOOR_MIN, left_s / time_left_s))
