"""What Prometheus scrapes at /v1/metrics: what each step moved, took, repeated, and how long it was held back.

Names are `redkv_sidecar_*`, units last. Labels have few values: step, error, reason, state; datasets are in /v1/status.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.format.errors import RedkvError

STEP_BUCKETS_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400)  # from a test's version to a night's terabyte


class Metrics:
    """The metrics of one sidecar, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.bytes = Counter("redkv_sidecar_bytes", "Bytes moved by a step", ["step"], registry=self.registry)
        self.seconds = Histogram(
            "redkv_sidecar_step_seconds", "Seconds of a step of one version", ["step"], buckets=STEP_BUCKETS_S, registry=self.registry
        )
        self.retries = Counter("redkv_sidecar_retries", "Repetitions after a failure", ["step", "error"], registry=self.registry)
        self.failures = Counter("redkv_sidecar_failures", "Steps that failed", ["step", "error"], registry=self.registry)
        self.held = Gauge("redkv_sidecar_throttle_seconds", "Seconds that downloads were held back", registry=self.registry)
        self.rate = Gauge(
            "redkv_sidecar_bandwidth_bytes", "Bytes per second that downloads may take; -1 is no limit", registry=self.registry
        )
        self.pace = Gauge("redkv_sidecar_pace_ratio", "How fast work may go for the readers' sake: 1 is unhindered", registry=self.registry)
        self.p99 = Gauge("redkv_sidecar_readers_p99_seconds", "The shards' worst p99 of the last look", registry=self.registry)
        self.versions = Gauge("redkv_sidecar_versions", "Versions on this node by state", ["state"], registry=self.registry)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; a failure is counted by its name."""
        began = time.monotonic()
        try:
            yield
        except Exception as failed:
            self.failures.labels(name, type(failed).__name__).inc()
            raise
        finally:
            self.seconds.labels(name).observe(time.monotonic() - began)

    def retried(self, step: str, failed: RedkvError) -> None:
        """Something is repeated."""
        self.retries.labels(step, type(failed).__name__).inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
