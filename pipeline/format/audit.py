"""The audit trail: who did what to which version, and when.

Rules:
- A record is written once, by conditional create, and never changed or removed; its id is the end of its object key, and ids sort by time.
- A record of a change of the desired state stands in that document first (`Desired.audit`), so it is there as soon as the change is;
  whoever changes the document next stores it as an object before.
- A record of anything else is stored before it is done (gc, an operator's word to the nodes), or has a name that makes it be there once
  however often it is told (a build).
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.format.records import VersionedRecord


class Action(StrEnum):
    """What was done."""

    BUILD = "build"  # a manifest was written
    LOAD = "load"  # nodes are to bring it
    ACTIVATE = "activate"  # clients are to read it
    ROLLBACK = "rollback"  # the same, of an older version than they read
    MARK_BAD = "mark-bad"  # clients shall never read it again
    CANCEL = "cancel"  # nodes are to give it up before clients read it
    RETIRE = "retire"  # nodes are to remove it
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    GC = "gc"  # objects are removed from the store


class AuditRecord(VersionedRecord):
    """One deed. `by` is user@host, or the name that was given; `epoch` is the desired state's that says so, None for what does not change
    it; `before` is the version that clients read until then; `detail` is for people.
    """

    id: str
    at_ms: int
    by: str
    action: Action
    dataset: str
    version: str | None = None
    build_id: str | None = None
    epoch: int | None = None
    before: str | None = None
    detail: str = ""


def audit_id(at_ms: int, name: str) -> str:
    """An id that sorts by time; `name` tells apart what happens in one millisecond."""
    return f"{at_ms:013d}-{name}"
