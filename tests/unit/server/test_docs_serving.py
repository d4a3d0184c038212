"""What docs/serving.md says of commands and settings is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from server.commands.parameters import BY_NAME
from server.commands.table import command_table
from server.settings import ShardSettings

PAGE = Path("docs/serving.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the first table below a title, without its head."""
    below = PAGE.split(f"\n## {title}\n", 1)[1]
    lines = [line for line in below.split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_commands_has_every_command() -> None:
    told = [word for _, commands in rows("Commands") for word in re.findall(r"\b[A-Z]{3,}\b", re.sub(r"\(.*?\)", "", commands))]
    there = {name.decode().upper() for name, command in command_table().items() if not command.admin_only}
    assert sorted(told) == sorted(there)


def test_the_table_of_settings_has_every_setting_and_its_name_in_config() -> None:
    table = rows("Settings")
    told = {word for cells in table for word in re.findall(r"`([a-z_]+)`", cells[0])}
    told |= {name.removesuffix("entries") + "value" for name in told if name.endswith("_listpack_entries")}
    assert told == ShardSettings.model_fields.keys()
    named = {word for cells in table for word in re.findall(r"`([a-z-]+\*?)`", cells[2])}
    assert [name for name in named if not any(one.startswith(name.rstrip("*")) for one in BY_NAME)] == []


def test_the_example_of_a_settings_file_is_one() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert ShardSettings(**tomllib.loads(example)).cluster_enabled
    assert not ShardSettings(**tomllib.loads(example.replace("# cluster_enabled", "cluster_enabled"))).cluster_enabled
