"""docs/format.md: its examples run, its JSON is the golden files, its grammars are those of the code."""

from __future__ import annotations

import doctest
import importlib
import re
import textwrap

import pytest

from tests.support.golden import DOCUMENT, goldens, with_examples

TEXT = DOCUMENT.read_text(encoding="utf-8")
GRAMMARS = re.findall(r"^```text (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_python_examples_give_what_they_show() -> None:
    outcome = doctest.testfile(str(DOCUMENT), module_relative=False, report=True)
    assert outcome.attempted > 30
    assert outcome.failed == 0


def test_the_json_examples_are_the_golden_files() -> None:
    assert with_examples(TEXT, goldens()) == TEXT, "docs/format.md shows other JSON than tests/golden: `make golden`"
    shown = set(re.findall(r"^```json (\S+)$", TEXT, re.MULTILINE))
    assert shown == {"manifest.json", "topology.json", "desired.json", "VERSION.json", "status.json"}


def grammars_of(module: str) -> list[str]:
    """The literal blocks (after `::`) of a module's docstring."""
    where = "pipeline.template" if module == "template" else f"pipeline.format.{module}"
    documented = importlib.import_module(where).__doc__ or ""
    return [textwrap.dedent(block).strip("\n") + "\n" for block in re.findall(r"::\n\n((?:    .*\n)+)", documented)]


@pytest.mark.parametrize("module", sorted({module for module, _ in GRAMMARS}))
def test_the_grammars_are_those_of_the_code(module: str) -> None:
    assert [grammar for shown, grammar in GRAMMARS if shown == module] == grammars_of(module)


def test_every_module_with_a_grammar_is_shown() -> None:
    assert {module for module, _ in GRAMMARS} == {"keys", "values", "template", "digest", "layout", "admin"}
