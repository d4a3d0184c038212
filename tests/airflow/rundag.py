"""Runs a DAG of the specs' folder in a process of its own: `python -m tests.airflow.rundag DAG_ID DAY [CONF]`; prints the run's state."""

from __future__ import annotations

import json
import sys

from tests.airflow.runs import run


def main() -> None:
    """The command."""
    dag_id, day, *conf = sys.argv[1:]
    sys.stdout.write(f"\nstate: {run(dag_id, day, json.loads(conf[0]) if conf else None).state}\n")


if __name__ == "__main__":
    main()
