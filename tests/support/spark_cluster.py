"""A Spark standalone cluster of the pyspark wheel: a master and workers as processes of their own, on loopback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psutil
import pyspark

from pipeline.stack.ports import LOOPBACK, free_ports
from pipeline.stack.processes import Program, Running, kill

SPARK_HOME = Path(pyspark.__file__).parent
EXECUTOR = "CoarseGrainedExecutorBackend"  # the class that an executor's JVM runs


@dataclass(frozen=True, slots=True)
class SparkCluster:
    """A running cluster: `url` for --master, and its processes."""

    url: str
    running: list[Running]

    def executors(self) -> list[psutil.Process]:
        """The executors that live now."""
        found = []
        for member in self.running:
            for process in psutil.Process(member.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if any(EXECUTOR in word for word in process.cmdline()):
                        found.append(process)
        return found


@contextmanager
def spark_cluster(workers: int) -> Iterator[SparkCluster]:
    """Start a master and workers of one core each, and stop them at the end. Their Python is one that has none of our packages."""
    with TemporaryDirectory(prefix="redkv-spark-") as folder:
        port, page, *own = free_ports(2 + 2 * workers)
        environment = {
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": LOOPBACK,
            "SPARK_WORKER_DIR": f"{folder}/work",
            "SPARK_LOCAL_DIRS": f"{folder}/local",
            "PYSPARK_PYTHON": f"{sys.base_prefix}/bin/python3",
        }
        address = f"http://{LOOPBACK}:{page}/json/"

        def alive() -> int:
            with suppress(OSError), urlopen(address, timeout=5) as answer:
                return int(json.load(answer)["aliveworkers"])
            return -1

        def program(name: str, class_name: str, *arguments: str, ready: int) -> Program:
            command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{class_name}", *arguments]
            return Program(name, command, environment, Path(folder) / f"{name}.log", lambda: alive() >= ready, ())

        url = f"spark://{LOOPBACK}:{port}"
        master = program("master", "master.Master", "--host", LOOPBACK, "--port", str(port), "--webui-port", str(page), ready=0)
        running = [master.start()]
        try:
            master.await_ready(running[0])
            for index in range(workers):
                ports = ("--port", str(own[2 * index]), "--webui-port", str(own[2 * index + 1]))
                worker = program(
                    f"worker-{index}", "worker.Worker", "--host", LOOPBACK, "--cores", "1", "--memory", "2g", *ports, url, ready=index + 1
                )
                running.append(worker.start())
                worker.await_ready(running[-1])
            yield SparkCluster(url, running)
        finally:
            kill(running)
