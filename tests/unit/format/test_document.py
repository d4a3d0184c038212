"""docs/format.md: its examples run, its JSON is the golden files, its grammars are those of the code."""

from __future__ import annotations

import doctest
import re

import pytest

from tests.support.golden import DOCUMENT, goldens, grammars_of, with_examples

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_python_examples_give_what_they_show() -> None:
    outcome = doctest.testfile(str(DOCUMENT), module_relative=False, report=True)
    assert outcome.attempted > 30
    assert outcome.failed == 0


def test_its_grammars_and_json_are_those_of_code_and_golden_files() -> None:
    assert with_examples(TEXT, goldens()) == TEXT, "docs/format.md shows other grammars or JSON than code and tests/golden: `make golden`"


def test_everything_that_crosses_between_parts_is_shown() -> None:
    shown = set(re.findall(r"^```(?:json|text) (\S+)$", TEXT, re.MULTILINE))
    grammars = {"keys", "values", "template", "digest", "layout", "admin"}
    documents = {"manifest.json", "delta.json", "topology.json", "desired.json", "queue.json", "audit.json", "VERSION.json", "status.json"}
    assert shown == grammars | documents


@pytest.mark.parametrize("module", ["keys", "values", "template", "digest", "layout", "admin"])
def test_all_grammars_of_a_module_are_shown(module: str) -> None:
    assert TEXT.count(f"```text {module}\n") == len(grammars_of(module)) > 0
