"""Starts the world for the tests that need it, and takes it away."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.world import BIN, DAGS, HOME, REPOSITORY, SPECS, STACK, START_S_MAX, World, done


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[None]:
    """Airflow's database, and a DAG folder as docs/airflow.md says."""
    SPECS.mkdir(parents=True)
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "airflow.md").read_text(encoding="utf-8"), re.DOTALL)
    (DAGS / "datasets.py").write_text(example, encoding="utf-8")
    airflow = Path(sys.executable).parent / "airflow"
    subprocess.run([str(airflow), "db", "migrate"], check=True, capture_output=True, timeout=START_S_MAX)
    yield
    shutil.rmtree(HOME)


@pytest.fixture(scope="session")
def world(database: None) -> Iterator[World]:
    """The local stack."""
    done([str(BIN / "redkv"), "up", "--dir", str(STACK)])
    try:
        yield World()
    finally:
        done([str(BIN / "redkv"), "down", "--purge", "--dir", str(STACK)])
