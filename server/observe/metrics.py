"""What Prometheus scrapes of a shard, and where: one small HTTP server in a thread of its own.

Names are `redkv_shard_*`, units last. Labels have few values: command, error, dataset.

Rules:
- A scrape only reads: it counts nothing anew, so it costs the event loop nothing between two of them.
- Its thread and the loop take turns at Python's lock. SWITCH_S bounds how long the loop waits for a turn; Python's own 5 ms would be ten
  times a GET.
- One scrape at a time; a peer that says nothing is hung up on.
- Counters start anew with CONFIG RESETSTAT, which Prometheus takes for a restart.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.format.admin import LATENCY_BUCKETS, latency_bucket
from pipeline.format.errors import NodeError
from server.latency import LOOP
from server.observe import readings
from server.session import Services

SWITCH_S = 0.0005
PEER_SILENT_S_MAX = 5.0
JOIN_S_MAX = 5.0
NS_PER_S = 1e9

BOUNDS_NS = tuple(1 << power for power in range(14, 32))  # 16 microseconds to 2 seconds, doubling: where buckets end exactly

_COUNTERS = {
    "connections_total": ("connections", "Connections accepted"),
    "connections_refused": ("connections_refused", "Connections refused because there were maxclients of them"),
    "commands_total": ("commands", "Commands run or refused"),
    "input_bytes": ("input_bytes", "Bytes received"),
    "output_bytes": ("output_bytes", "Bytes of replies"),
    "auth_failures": ("auth_failures", "Wrong passwords"),
    "clients_cut_output": ("clients_cut_output", "Clients cut off because they did not read their replies"),
    "clients_closed_idle": ("clients_closed_idle", "Clients closed because they were idle"),
    "protocol_errors": ("protocol_errors", "Clients closed because they did not speak RESP, or beyond a limit"),
}


class ShardCollector(Collector):
    """Reads the shard when asked."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """All metrics of now."""
        yield from self._counters()
        yield from self._commands()
        yield from self._loop()
        yield from self._storage()

    def _counters(self) -> Iterator[Metric]:
        services = self._services
        for attribute, (name, meaning) in _COUNTERS.items():
            yield _counter(name, meaning, getattr(services.stats, attribute))
        yield _gauge("connected_clients", "Connections open now", len(services.sessions))
        yield _gauge("clients_max", "maxclients", services.config.maxclients)
        yield _gauge("clients_paused", "Clients whose commands wait for the end of a CLIENT PAUSE", len(services.pause))
        yield _gauge("start_time_seconds", "When the shard started, since the epoch", services.started_ms / 1_000)
        yield _gauge("resident_bytes", "Memory of the process", readings.resident_bytes())

    def _commands(self) -> Iterator[Metric]:
        commands = self._services.commands
        for name, meaning, counts, label in (
            ("command_calls", "Calls by command", commands.calls(), "command"),
            ("command_failures", "Calls that were answered by an error", commands.failed.copy(), "command"),
            ("command_refusals", "Commands refused before they ran", commands.refused.copy(), "command"),
            ("errors", "Error replies by their first word", commands.errors.copy(), "error"),
        ):
            family = CounterMetricFamily(f"redkv_shard_{name}", meaning, labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family
        durations = HistogramMetricFamily(
            "redkv_shard_command_seconds", "Durations by command, estimated from every eighth run of each connection", labels=["command"]
        )
        for name, timed in commands.timed.copy().items():
            durations.add_metric([name], *_histogram(timed.buckets.copy(), timed.total_ns))
        yield durations

    def _loop(self) -> Iterator[Metric]:
        latencies = self._services.latencies
        buckets = latencies.counts_of(LOOP)
        lateness = HistogramMetricFamily("redkv_shard_loop_lateness_seconds", "How late the event loop turned, looked at 50 times a second")
        lateness.add_metric([], *_histogram(buckets, latencies.loop_total_ns))
        yield lateness
        yield _gauge("loop_longest_stall_seconds", "The longest one since the start or CONFIG RESETSTAT", latencies.longest_ns / NS_PER_S)
        yield _counter("loop_slow_turns", "Turns that were late by 50 ms or more", latencies.slow_turns)

    def _storage(self) -> Iterator[Metric]:
        for name, value in readings.rocksdb(self._services).items():
            yield _gauge(f"rocksdb_{name}", "See docs/serving.md", value)
        found = readings.caches(self._services)
        yield _gauge("hot_cache_values", "Values kept ready", found.pop("hot_cache_values"))
        for name, value in found.items():
            yield _counter(name, "See docs/serving.md", value)
        yield _counter("commits", "Batches written to the live database", self._services.engine.live.commits)
        active = GaugeMetricFamily("redkv_shard_dataset_active", "1 for the active version", labels=["dataset", "version", "build"])
        opened = GaugeMetricFamily("redkv_shard_dataset_versions_opened", "Versions opened", labels=["dataset"])
        refused = GaugeMetricFamily("redkv_shard_dataset_refused", "1 if the active version can't be served", labels=["dataset"])
        lagging = GaugeMetricFamily("redkv_shard_dataset_lagging", "1 if clients shall read another version", labels=["dataset"])
        for one in readings.datasets(self._services):
            lagging.add_metric([one.name], int(one.lagging))
            if one.active:
                active.add_metric([one.name, one.active, one.build_id], 1)
            opened.add_metric([one.name], one.opened)
            refused.add_metric([one.name], int(one.refused))
        yield from (active, opened, refused, lagging)
        yield from self._upkeep()

    def _upkeep(self) -> Iterator[Metric]:
        sweep = self._services.upkeep.sweep
        yield _counter("expired_keys", "Live keys removed because they had expired", self._services.engine.expired_keys)
        yield _counter("swept_collections", "Deleted big collections whose elements were removed", sweep.collections)
        yield _gauge("sweep_backlog", "Deleted big collections, or parts of them, whose elements are known and still there", sweep.backlog)


class MetricsServer:
    """The endpoint of one shard."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Listen, if the settings name a port.

        Raises:
            NodeError: the address can't be listened on.
        """
        settings = self._services.settings
        if settings.metrics_port is None:
            return
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ShardCollector(self._services))
        try:
            self._server = make_server(settings.metrics_host, settings.metrics_port, make_wsgi_app(registry), handler_class=_Handler)
        except OSError as failed:
            raise NodeError(
                f"shard {settings.name} can't serve metrics on {settings.metrics_host}:{settings.metrics_port}: {failed}",
                shard=settings.name,
            ) from failed
        sys.setswitchinterval(SWITCH_S)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more. Takes up to half a second: call it off the loop."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(JOIN_S_MAX)


class _Handler(WSGIRequestHandler):
    timeout = PEER_SILENT_S_MAX

    def log_message(self, *_: object) -> None:
        """A scrape is no event."""


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"redkv_shard_{name}", meaning, value)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"redkv_shard_{name}", meaning, value)


def _histogram(buckets: list[int], total_ns: int) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound in seconds, and the sum."""
    bounds: list[tuple[str, float]] = []
    seen = at = 0
    for bound in BOUNDS_NS:
        beyond = latency_bucket(bound)
        seen += sum(buckets[at:beyond])
        at = beyond
        bounds.append((f"{bound / NS_PER_S:.9g}", seen))
    bounds.append(("+Inf", seen + sum(buckets[at:LATENCY_BUCKETS])))
    return bounds, total_ns / NS_PER_S
