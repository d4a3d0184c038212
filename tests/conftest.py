"""What test modules share: object stores, one Spark for all that need one, who runs beside whom, and how Hypothesis judges.

`make test` runs some workers beside each other. A module's tests stay with one of them, as they share what they start; all modules that
start Spark stay with the same one, as two Sparks would be more than two cores carry.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import PurePath

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.hive import hive_metastore
from tests.support.s3 import S3, s3_store
from tests.support.spark import SparkStack, local_spark

# By default, an example fails that takes 200 ms, the more so if it takes less when it is run again: where others work beside, any can.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

SPARK_GROUP = "spark"
SPARK_MODULES = ("test_build_", "test_load.", "test_load_deltas.", "test_stack_")


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    """An object store of the module's own."""
    with s3_store() as one:
        yield one


@pytest.fixture
def s3(server: S3) -> S3:
    """The same server, with an empty root for one test."""
    return server.fresh()


@pytest.fixture(scope="session")
def spark_stack() -> Iterator[SparkStack]:
    """Spark, its metastore and its S3: they take longer to start than most tests run."""
    with s3_store() as s3, hive_metastore() as metastore, local_spark(metastore, s3) as spark:
        yield SparkStack(spark, s3, metastore)


def pytest_configure() -> None:
    """Whoever is told to end by SIGINT shall: a shell's background job ignores it, and so would every process that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first."""
    items.sort(key=lambda item: group_of(item.nodeid) != SPARK_GROUP)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Called if there are workers."""
    return Groups(config, log)


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives a worker whole groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Whose tests stay together: a module's, or those of all that start Spark."""
    module = PurePath(nodeid.partition("::")[0])
    starts_spark = module.name.startswith(SPARK_MODULES) and "unit" not in module.parts
    return SPARK_GROUP if starts_spark else str(module)
