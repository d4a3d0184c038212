"""Spark's own failures in one sentence each: what the boundary to Spark makes of an exception that is none of ours.

A Java exception comes with hundreds of lines of stack. What a person needs of it is what Spark said first, and the deepest cause, where
that says more; the job's log keeps the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipeline.format.errors import BuildFailedError

CAUSES_MAX = 20  # links of a chain of causes that are followed: Java allows a circle

_STATE = "SQLSTATE: "  # Spark's last line below a worker's traceback
_TRACEBACK = "Traceback (most recent call last)"


@contextmanager
def translated(table: str) -> Iterator[None]:
    """Within it, Spark's failures become a BuildFailedError that names the table and the reason."""
    try:
        yield
    except (PySparkException, Py4JError) as failed:
        why = reason(failed)
        message = f"Spark failed while it built from {table}: {why}; look for that in the job's log, mend it, and run the build again"
        raise BuildFailedError(message, table=table, reason=why) from failed


def reason(failed: Exception) -> str:
    """What Spark said, and the deepest cause if that is another text."""
    java = getattr(failed, "java_exception", None) or getattr(failed, "_origin", None)
    said = _essence(str(failed) if java is None else str(java.toString()))
    cause = "" if java is None else _essence(str(_deepest(java).toString()))
    return said if not cause or cause in said else f"{said} (cause: {cause})"


def _deepest(java: Any) -> Any:
    for _ in range(CAUSES_MAX):
        cause = java.getCause()
        if cause is None:
            break
        java = cause
    return java


def _essence(text: str) -> str:
    """The line that says it: of a Python worker's traceback the last one, otherwise the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    lines = [line for line in lines if not line.startswith(_STATE)]
    if not lines:
        return "it gave no reason"
    return lines[-1] if _TRACEBACK in text else lines[0]
