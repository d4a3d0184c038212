"""One node on a real object store, for the modules that need no more: two shards that run, the documents they follow, a proxy before S3.

A module that needs something else has a fixture of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.format.slots import even_ranges
from tests.support.proxy import Proxy, proxy_to
from tests.support.s3 import S3
from tests.support.shards import ShardProcess, running_shards, topology_of
from tests.support.sidecars import Head


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[list[ShardProcess]]:
    with running_shards(tmp_path, 2) as pair:
        yield pair


@pytest.fixture
def head(s3: S3, shards: list[ShardProcess]) -> Head:
    """Each shard owns half of the slots."""
    head = Head(s3.store)
    head.topology(topology_of(shards, [[one] for one in even_ranges(2)]))
    return head


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    port = urlsplit(s3.environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    with proxy_to(port) as one:
        yield one
