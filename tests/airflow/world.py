"""The world of the tests here: Airflow on a database of its own, and a local stack beside it.

Airflow reads its settings when it is imported, so they stand in the environment before anything else is. The stack, Spark and builds run in
the project's other environment, `.venv`, as processes: this one has neither.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
BIN = REPOSITORY / ".venv" / "bin"
HOME_VARIABLE = "REDKV_TESTS_HOME"  # the folder of the test that started this process, if one did
HOME = Path(os.environ.get(HOME_VARIABLE) or mkdtemp(prefix="redkv-airflow-"))
DAGS = HOME / "dags"
SPECS = DAGS / "specs"
STACK = HOME / "stack"
TABLE = "features.person"
START_S_MAX = 180.0

ENVIRONMENT = {
    HOME_VARIABLE: str(HOME),
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW_CONN_REDKV_DEFAULT": json.dumps({"conn_type": "redkv", "extra": {"settings": str(STACK / "redkv.toml")}}),
    "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
    "REDKV_DAG_SPECS": str(SPECS),
    "PYSPARK_PYTHON": str(BIN / "python"),
    "PATH": f"{os.environ['PATH']}:{BIN}",  # where spark-submit is
}
os.environ.update(ENVIRONMENT)


@dataclass(frozen=True)
class World:
    """The running stack, and what tests do with it."""

    folder: Path = STACK

    def spec(self, dataset: str, when: dict[str, Any] | None = None, **more: Any) -> Path:
        """A dataset's spec in the folder of specs; `when` is its DAG's."""
        document = {
            "dataset": dataset,
            "source": {"table": TABLE, "where": "ds = '${date}'"},
            "key": f"{dataset}:${{id}}",
            "type": "hash",
            "mode": "replace",
            **more,
        }
        path = SPECS / f"{dataset}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        path.with_name(f"{dataset}.dag.yaml").write_text(yaml.safe_dump({"retries": 0, **(when or {})}), encoding="utf-8")
        return path

    def build(self, dataset: str, version: str, rows: int = 100, *base: str) -> None:
        """A version without Spark, perhaps a delta."""
        self.python("tests.support.prebuilt", self.settings_path, SPECS / f"{dataset}.yaml", version, rows, *base)

    def table(self, *days: str, rows: int = 100) -> None:
        """Partitions of TABLE, by Spark."""
        self.python("tests.support.hivetable", self.settings_path, TABLE, rows, *days)

    @property
    def settings_path(self) -> Path:
        return self.folder / "redkv.toml"

    def python(self, module: str, *arguments: object) -> str:
        """A module of this project, run in its own environment."""
        return done([str(BIN / "python"), "-m", module, *map(str, arguments)])

    def redkv(self, *arguments: str) -> Any:
        """A command of the command line; its JSON answer."""
        return json.loads(done([str(BIN / "redkv"), "--config", str(self.settings_path), *arguments, "--output", "json"]))

    def served(self, dataset: str, rows: int = 100) -> set[str]:
        """The versions that a cluster client reads, over all keys."""
        from redis.cluster import ClusterNode, RedisCluster  # noqa: PLC0415 -- after the environment is set

        port = next(iter(self._ports()))
        seeds = [ClusterNode("127.0.0.1", port)]  # type: ignore[no-untyped-call]
        with RedisCluster(startup_nodes=seeds, decode_responses=True) as client:
            replies = [client.hget(f"{dataset}:{number}", "name") for number in range(rows)]
        return {"" if reply is None else str(reply).partition(" ")[0] for reply in replies}

    def _ports(self) -> Iterator[int]:
        topology = json.loads(done([str(BIN / "redkv"), "--config", str(self.settings_path), "cluster", "show"]))
        yield from (shard["port"] for node in topology["nodes"] for shard in node["shards"])


def done(command: list[str]) -> str:
    """What a command of the other environment writes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=START_S_MAX)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout
