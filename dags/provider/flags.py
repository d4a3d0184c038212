"""Arguments that are templates, and no plain text: Airflow renders them as text."""

from __future__ import annotations

from pipeline.format.errors import UsageError
from pipeline.load.coverage import Require

_WORDS = {"true": True, "false": False}


def flag(value: bool | str) -> bool:
    """A flag, given as such or as the text of one.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(value, bool):
        return value
    found = _WORDS.get(value.strip().lower())
    if found is None:
        raise UsageError(f"{value!r} is neither true nor false: look at the template that it comes from", value=value)
    return found


def required(value: str) -> Require:
    """Which nodes must be there.

    Raises:
        UsageError: it is neither `all` nor `any`.
    """
    try:
        return Require(value.strip().lower())
    except ValueError as wrong:
        raise UsageError(f"require is {value!r}: write all or any", value=value) from wrong
