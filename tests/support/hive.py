"""A real Hive metastore for tests, and what Spark needs to find it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.stack.metastore import Metastore
from pipeline.stack.ports import free_ports
from pipeline.stack.processes import kill

SPARK_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false"}


@contextmanager
def hive_metastore() -> Iterator[Metastore]:
    """Start a metastore on an empty folder, and stop it at the end."""
    with TemporaryDirectory(prefix="redkv-hive-") as folder:
        metastore = Metastore(Path(folder), free_ports(1)[0])
        program = metastore.program(Path(folder) / "metastore.log")
        running = program.start()
        try:
            program.await_ready(running)
            yield metastore
        finally:
            kill([running])


def spark_conf(metastore: Metastore) -> dict[str, str]:
    """Spark settings that find this metastore and stay on loopback."""
    return {
        **SPARK_LOOPBACK,
        "spark.hadoop.hive.metastore.uris": metastore.uri,
        "spark.sql.warehouse.dir": str(metastore.warehouse),
        "spark.sql.catalogImplementation": "hive",
    }
