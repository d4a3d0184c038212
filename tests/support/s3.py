"""A real S3 for tests: SeaweedFS on free loopback ports, gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from pipeline.stack.processes import kill
from pipeline.stack.seaweed import BUCKET, Seaweed
from pipeline.store import ObjectStore


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3: `url` is a fresh root in it, `environment` what the standard AWS chain needs (set in this process already)."""

    url: str
    environment: dict[str, str]
    pid: int

    @property
    def store(self) -> ObjectStore:
        """The same one each time: making one takes longer than most that is asked of it."""
        return _store(self.url)

    def fresh(self) -> S3:
        """The same server, another empty root."""
        return S3(f"s3://{BUCKET}/{uuid4().hex}", self.environment, self.pid)


@lru_cache(1)
def _store(url: str) -> ObjectStore:
    return ObjectStore(url)


@contextmanager
def s3_store() -> Iterator[S3]:
    """Start SeaweedFS, set its environment here, and stop it at the end."""
    with TemporaryDirectory(prefix="redkv-s3-") as folder:
        seaweed = Seaweed.new(Path(folder))
        program = seaweed.program(Path(folder) / "weed.log")
        running = program.start()
        before = {name: os.environ.get(name) for name in seaweed.environment}
        try:
            program.await_ready(running)
            os.environ.update(seaweed.environment)
            yield S3(f"s3://{BUCKET}/{uuid4().hex}", seaweed.environment, running.pid)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            kill([running])
            seaweed.remove_sockets()
