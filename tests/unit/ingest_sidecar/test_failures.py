"""What a turn's failures come to: in the log, all that are new; in the status, the gravest."""

from __future__ import annotations

from structlog.testing import capture_logs

from ingest_sidecar.failures import TurnFailures
from pipeline.format.errors import NodeError, RedkvError, ShardUnavailableError, StaleEpochError

AWAY, STALE, NODE = ShardUnavailableError("away", shards=["a"]), StaleEpochError("stale", epoch=1), NodeError("node")


def test_every_new_failure_is_logged_and_the_gravest_is_shown_with_the_number_of_the_others() -> None:
    failures = TurnFailures()
    turns: list[tuple[list[RedkvError], list[str], str | None]] = [
        ([], [], None),
        ([AWAY], ["away"], "away"),
        ([AWAY, STALE, NODE], ["stale", "node"], "stale (and 2 more, in the sidecar's log)"),
        ([AWAY, STALE], [], "stale (and 1 more, in the sidecar's log)"),
        ([NODE, AWAY], ["node"], "node (and 1 more, in the sidecar's log)"),
        ([], [], None),
        ([AWAY], ["away"], "away"),
    ]
    for turn, logged, shown in turns:
        with capture_logs() as logs:
            failures.note(turn)
        assert [one["message"] for one in logs] == logged
        assert (failures.shown and failures.shown.message) == shown
    failures.note([AWAY, STALE])
    assert failures.shown is not None
    assert failures.shown.to_json() == {**STALE.to_json(), "message": "stale (and 1 more, in the sidecar's log)"}
