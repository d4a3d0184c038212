"""Airflow's entry: a DAG for every dataset spec in the folder that REDKV_DAG_SPECS names, by default `specs` beside this file."""

from __future__ import annotations

import os
from pathlib import Path

from dags.definitions.factory import dags_of

FOLDER = Path(os.environ.get("REDKV_DAG_SPECS") or Path(__file__).parent / "specs")

if os.environ.get("REDKV_DAG_SPECS") and not FOLDER.is_dir():
    raise NotADirectoryError(f"REDKV_DAG_SPECS is {FOLDER}, and there is no such folder here: no dataset would be loaded")
globals().update(dags_of(FOLDER))
