"""Starting the build job: spark-submit as a process, its log in a file, its result from a file.

The job is found without importing it. Credentials reach it by the environment alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.format.errors import BuildFailedError, RedkvError, UsageError
from pipeline.settings import ClusterSettings

LOG_LINES = 15


def run_build(settings: ClusterSettings, spec: Path, version: str, log: Path) -> None:
    """Build one version; returns when its manifest is written.

    Raises:
        RedkvError: the typed error with which the job ended.
        BuildFailedError: it ended without saying why; the message holds the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="redkv-build-") as folder:
        result = Path(folder) / "result.json"
        command = [_spark_submit(), "--master", settings.spark_master, *_conf(settings), str(_job())]
        arguments = ["--spec", str(spec), "--version", version, "--store", settings.store, "--result", str(result)]
        with log.open("wb") as output:
            done = subprocess.run(
                [*command, *arguments], env=_environment(), stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False
            )
        _check(result, done.returncode, log)


def _check(result: Path, code: int, log: Path) -> None:
    if result.exists():
        record = json.loads(result.read_bytes())
        if "error" in record:
            raise RedkvError.from_json(record["error"])
        if code == 0:
            return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    raise BuildFailedError(f"the build job ended with code {code} and no result; the end of {log}:\n{tail}", code=code, log=str(log))


def _conf(settings: ClusterSettings) -> list[str]:
    conf = {"spark.hadoop.hive.metastore.uris": settings.metastore_uris, **settings.spark_conf}
    return [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]


def _environment() -> dict[str, str]:
    """Spark's Python workers run this interpreter, unless the user chose another."""
    return {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, **os.environ}


def _spark_submit() -> str:
    home = os.environ.get("SPARK_HOME")
    places = [str(Path(home) / "bin")] if home else []
    places += [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which("spark-submit", path=os.pathsep.join(places))
    if found is None:
        raise UsageError("there is no spark-submit: install the extra `spark` (pip install 'redkv[spark]'), or set SPARK_HOME")
    return found


def _job() -> Path:
    found = importlib.util.find_spec("udtf")
    if found is None or not found.submodule_search_locations:
        raise UsageError("the build job (package udtf) is not installed here: pip install 'redkv[spark]'")
    return Path(found.submodule_search_locations[0]) / "job.py"
