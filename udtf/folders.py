"""Where a task keeps what it writes before it is uploaded."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

SPARK_FOLDERS = "SPARK_LOCAL_DIRS"  # which Spark tells its Python workers, by commas; it removes them when it ends


def task_folder(prefix: str) -> TemporaryDirectory[str]:
    """A temporary folder among Spark's own, so that it goes though the worker was killed; outside a worker, where the system has them."""
    spark = os.environ.get(SPARK_FOLDERS, "").partition(",")[0]
    return TemporaryDirectory(prefix=prefix, dir=spark or None)
