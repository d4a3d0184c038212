import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from pipeline.cli.app import app

EXAMPLES = re.findall(r"^redkv .*$", Path("docs/cli.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_in_docs_cli_md_is_a_command_with_these_options(line: str) -> None:
    command: object = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        while words[0].startswith("--"):  # an option of all commands, with its value
            words = words[2:]
        command = command.commands[words.pop(0)]
    assert isinstance(command, click.Command) or hasattr(command, "make_context")
    command.make_context("redkv", words)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 8
