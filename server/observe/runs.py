"""One connection's runs of commands, timed: for the slow log all, into histograms every eighth (server/latency.py).

The connection looks at the clock and compares, which is all that a run costs that is neither; the rest is here.
"""

from __future__ import annotations

from time import perf_counter_ns

from server.config import NS_PER_US
from server.session import Services, Session

MS_PER_S = 1_000


class RunObserver:
    """The observer of one connection."""

    __slots__ = ("_began_ns", "_services")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._began_ns = 0  # of the run whose last command is under way

    def begun(self, began_ns: int) -> None:
        """The last command of the run that began then is still under way."""
        self._began_ns = began_ns

    def slow(self, session: Session, commands: list[list[bytes]], took_ns: int) -> None:
        """The run of these commands was slow."""
        self._services.slowlog.add(commands, took_ns // NS_PER_US, session.last_ms // MS_PER_S, session.peer, session.name)

    def sampled(self, commands: list[list[bytes]], took_ns: int) -> None:
        """The run of these commands is one of those that fill the histograms."""
        if self._services.config.latency_tracking:
            self._services.commands.took(commands, took_ns)

    def answered(self, session: Session, began_ns: int) -> None:
        """The replies of such a run, which began then, left."""
        self._services.latencies.record(session.last_command, perf_counter_ns() - began_ns)

    def ended(self, session: Session, words: list[bytes], reply: bytes) -> None:
        """The command that was under way has its reply."""
        took_ns = perf_counter_ns() - self._began_ns
        services = self._services
        if reply[:1] == b"-":
            services.commands.failed_with(words, reply)
        if services.config.latency_tracking:
            services.commands.took([words], took_ns)
        if took_ns >= services.config.slow_ns:
            self.slow(session, [words], took_ns)
