"""The scenario through Node's clients: a driver of tests/clients/node is a process that takes and gives JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clients.scenario import Verb

FOLDER = Path(__file__).with_name("node")
_WAIT_S = 120.0


def run(driver: str, port: int, protocol: int, verbs: Sequence[Verb], *, cluster: bool) -> list[Any]:
    """Do it; what came of each verb."""
    asked = json.dumps({"port": port, "cluster": cluster, "resp": protocol, "verbs": verbs})
    done = subprocess.run(["node", f"{driver}.mjs"], cwd=FOLDER, input=asked, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    given: list[Any] = json.loads(done.stdout)
    return given
