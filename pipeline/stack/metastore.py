"""A Hive metastore on loopback, from the jars of the pyspark wheel, on an embedded Derby: `python -m pipeline.stack.metastore FOLDER PORT`.

Hive's own main class binds its thrift server to every interface and has no setting for it. So this process starts a JVM through Py4J
and puts the same server together from Hive's public classes, on a socket of 127.0.0.1. The JVM ends with this process.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JJavaError

from pipeline.format.errors import UsageError
from pipeline.stack.ports import LOOPBACK, accepts
from pipeline.stack.processes import Program

HEAP = "512m"
JVM_STOP_WAIT_S = 3.0  # its end takes about 0.3 s, rarely it hangs; Derby mends what a killed JVM leaves
RETRY_INTERVAL_MS = 200  # ten times, by default 2 s apart: made for a database that comes back, but Derby lives in this very JVM
CAUSES_MAX = 50  # Java lets causes form a circle
WORKERS_MIN = 2
WORKERS_MAX = 64  # Spark's driver holds a few connections; nobody else connects here


@dataclass(frozen=True, slots=True)
class Metastore:
    """One metastore: its folder (Derby's files and the warehouse) and its port."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        """What Spark's `hive.metastore.uris` names."""
        return f"thrift://{LOOPBACK}:{self.port}"

    @property
    def warehouse(self) -> Path:
        """Where managed tables lie."""
        return self.folder / "warehouse"

    def program(self, log: Path) -> Program:
        """How to start it; it is ready when its port accepts.

        Raises:
            UsageError: there is no Java, or no pyspark.
        """
        java_command()
        jars_folder()
        self.warehouse.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-uP", "-m", "pipeline.stack.metastore", str(self.folder), str(self.port)]
        return Program("metastore", command, {}, log, lambda: accepts(self.port), [self.port])


def java_command() -> str:
    """Java's launcher.

    Raises:
        UsageError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"no bin/java below JAVA_HOME={home}" if home else "no Java on PATH"
        raise UsageError(f"there is {where}: install Java 17 (on Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one")
    return found


def jars_folder() -> Path:
    """The jars of the pyspark wheel.

    Raises:
        UsageError: pyspark is not installed.
    """
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise UsageError("there is no pyspark: install the extra `spark` (pip install 'redkv[spark]')")
    return Path(found.origin).parent / "jars"


def serve(folder: Path, port: int) -> None:
    """Start the JVM and serve until this process is stopped."""
    jars = jars_folder()
    options = [
        f"-Xmx{HEAP}",
        f"-Dderby.system.home={folder}",
        f"-Djavax.jdo.option.ConnectionURL=jdbc:derby:;databaseName={folder}/metastore;create=true",
        f"-Dhive.metastore.warehouse.dir={folder}/warehouse",
        "-Ddatanucleus.schema.autoCreateAll=true",
        "-Dhive.metastore.schema.verification=false",
        f"-Dhive.hmshandler.retry.interval={RETRY_INTERVAL_MS}ms",
        "-Dlog4j2.contextSelector=org.apache.logging.log4j.core.selector.ClassLoaderContextSelector",
    ]
    gateway_port, token, java = launch_gateway(
        jarpath=str(next(jars.glob("py4j-*.jar"))),
        classpath=str(jars / "*"),
        javaopts=options,
        java_path=java_command(),
        die_on_exit=True,
        enable_auth=True,
        redirect_stdout=sys.stdout,
        redirect_stderr=sys.stderr,
        return_proc=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=gateway_port, auth_token=token))
        _server(gateway.jvm, port).serve()
    except Py4JJavaError as failed:  # its text is asked from the JVM: now, while that runs
        sys.exit(f"the metastore in {folder} failed: {_root_cause(failed.java_exception)}")
    finally:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # that its references point nowhere now is no news
        java.stdin.close()  # Py4J ends the JVM in order when its input ends
        with suppress(subprocess.TimeoutExpired):
            java.wait(JVM_STOP_WAIT_S)
        java.kill()


def _root_cause(failure: Any) -> str:
    causes = [failure]
    while (cause := causes[-1].getCause()) is not None and len(causes) < CAUSES_MAX:
        causes.append(cause)
    return str(causes[-1].toString())


def _server(jvm: Any, port: int) -> Any:
    """The server that HiveMetaStore.startMetaStore would build with default settings, but on loopback."""
    hive, thrift = jvm.org.apache.hadoop.hive, jvm.org.apache.thrift
    conf = hive.conf.HiveConf()
    handler = hive.metastore.HiveMetaStore.newRetryingHMSHandler(
        hive.metastore.HiveMetaStore.HMSHandler("metastore", conf, False),
        conf,
    )
    protocol = thrift.protocol.TBinaryProtocol.Factory()
    arguments = (
        thrift.server.TThreadPoolServer.Args(thrift.transport.TServerSocket(jvm.java.net.InetSocketAddress(LOOPBACK, port)))
        .processor(hive.metastore.TUGIBasedProcessor(handler))
        .transportFactory(hive.thrift.TUGIContainingTransport.Factory())
        .protocolFactory(protocol)
        .inputProtocolFactory(protocol)
        .minWorkerThreads(WORKERS_MIN)
        .maxWorkerThreads(WORKERS_MAX)
    )
    return thrift.server.TThreadPoolServer(arguments)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
