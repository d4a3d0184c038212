"""The runbook has a paragraph for every failure of store, bytes, node and load, under the name that statuses link to."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.format.errors import (
    RUNBOOK,
    FormatError,
    IntegrityError,
    LoadError,
    NodeError,
    PrefixOverlapError,
    RedkvError,
    StoreError,
)

GROUPS = {StoreError, IntegrityError, LoadError}  # never raised as such


def below(root: type[RedkvError]) -> set[type[RedkvError]]:
    return {root}.union(*(below(child) for child in root.__subclasses__()))


def test_every_failure_of_operation_has_its_paragraph() -> None:
    text = (Path(__file__).parents[3] / RUNBOOK).read_text(encoding="utf-8")
    paragraphs = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    expected = {kind for root in (StoreError, IntegrityError, NodeError, LoadError, FormatError) for kind in below(root)} - GROUPS
    expected = {kind for kind in expected if kind.__module__ == RedkvError.__module__}  # the local stack's own are told by `redkv up`
    assert paragraphs == {kind.__name__ for kind in expected}
    assert PrefixOverlapError.__name__ not in paragraphs
    for kind in expected:
        anchor = kind("m").to_json()["runbook"].partition("#")[2]
        assert anchor in {name.lower() for name in paragraphs}
