"""What goes wrong in the turns of the loop: every failure is logged when it is new, the gravest one stands in the node's status."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from pipeline.format.errors import Outcome, RedkvError


class TurnFailures:
    """Of one node. `shown` is what its status says of the last turn."""

    def __init__(self) -> None:
        self.shown: RedkvError | None = None
        self._told: frozenset[str] = frozenset()
        self._log = structlog.get_logger("ingest_sidecar")

    def note(self, failures: Sequence[RedkvError]) -> None:
        """Take all failures of a turn; none of them end those of the turn before."""
        for one in failures:
            if one.message not in self._told:
                self._log.error("turn failed", **one.to_json())
        self._told = frozenset(one.message for one in failures)
        self.shown = _gravest(failures) if failures else None


def _gravest(failures: Sequence[RedkvError]) -> RedkvError:
    """The first that does not mend itself, else the first; with the number of the others."""
    gravest = min(failures, key=lambda one: one.outcome is not Outcome.FATAL)
    others = len(failures) - 1
    if not others:
        return gravest
    return type(gravest)(f"{gravest.message} (and {others} more, in the sidecar's log)", **gravest.fields)
