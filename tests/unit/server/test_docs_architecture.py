"""ARCHITECTURE.md names every module of the shard, in the row of its room, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SECTION = Path("ARCHITECTURE.md").read_text(encoding="utf-8").split("### server/", 1)[1].split("\n### ", 1)[0]
ROOMS = ("", "net", "resp", "cluster", "observe", "commands", "storage")


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_of_a_room_is_named_in_its_rows(room: str) -> None:
    rows = [line for line in SECTION.splitlines() if line.startswith(f"| `{room or 'server'}/`")]
    named = sorted(name for row in rows for name in re.findall(r"`(\w+\.py)`", row))
    there = sorted(path.name for path in (Path("server") / room).glob("*.py") if path.name != "__init__.py")
    assert named == there
