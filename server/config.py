"""What may be changed while the shard runs (CONFIG SET), in one object that every part reads where it needs it.

Rules:
- It starts as the settings say; a change lasts until the process ends, nothing writes it back.
- Whoever reads a value reads it anew each time, by its attribute: there are no callbacks. The parsers of all connections share `limits`.
- Names are those of Redis' parameters, with `_` for `-`, and a unit where Redis leaves it to the reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from server.resp.parser import Limits
from server.settings import FsyncPolicy, ShardSettings

NS_PER_US = 1_000


@dataclass(slots=True)
class RuntimeConfig:
    """The run-time parameters of one shard; server/settings.py describes each."""

    requirepass: bytes  # empty: no password
    maxclients: int
    timeout_s: int
    tcp_keepalive_s: int
    limits: Limits  # proto-max-bulk-len and client-query-buffer-limit
    output_hard_bytes: int  # client-output-buffer-limit, class normal; 0: none
    output_soft_bytes: int
    output_soft_s: int
    hash_max_listpack_entries: int
    hash_max_listpack_value: int
    zset_max_listpack_entries: int
    zset_max_listpack_value: int
    appendfsync: FsyncPolicy
    slow_ns: float  # slowlog-log-slower-than as every run is held against it; infinite: log nothing
    slowlog_max_len: int
    latency_tracking: bool

    @classmethod
    def of(cls, settings: ShardSettings) -> Self:
        """The values at the start."""
        return cls(
            requirepass=settings.requirepass.get_secret_value().encode(),
            maxclients=settings.clients_max,
            timeout_s=settings.timeout_s,
            tcp_keepalive_s=settings.tcp_keepalive_s,
            limits=Limits(bulk_bytes_max=settings.bulk_bytes_max, command_bytes_max=settings.query_buffer_bytes_max),
            output_hard_bytes=settings.output_hard_bytes,
            output_soft_bytes=settings.output_soft_bytes,
            output_soft_s=settings.output_soft_s,
            hash_max_listpack_entries=settings.hash_max_listpack_entries,
            hash_max_listpack_value=settings.hash_max_listpack_value,
            zset_max_listpack_entries=settings.zset_max_listpack_entries,
            zset_max_listpack_value=settings.zset_max_listpack_value,
            appendfsync=settings.appendfsync,
            slow_ns=_slow_ns(settings.slowlog_log_slower_than_us),
            slowlog_max_len=settings.slowlog_max_len,
            latency_tracking=settings.latency_tracking,
        )

    @property
    def slowlog_log_slower_than_us(self) -> int:
        """From which time on a command is slow, in microseconds; 0: every one; -1: none."""
        return -1 if self.slow_ns == math.inf else int(self.slow_ns) // NS_PER_US

    @slowlog_log_slower_than_us.setter
    def slowlog_log_slower_than_us(self, value: int) -> None:
        self.slow_ns = _slow_ns(value)

    @property
    def proto_max_bulk_len(self) -> int:
        """The longest value or argument, in bytes."""
        return self.limits.bulk_bytes_max

    @proto_max_bulk_len.setter
    def proto_max_bulk_len(self, value: int) -> None:
        self.limits.bulk_bytes_max = value

    @property
    def client_query_buffer_limit(self) -> int:
        """The longest command, in bytes."""
        return self.limits.command_bytes_max

    @client_query_buffer_limit.setter
    def client_query_buffer_limit(self, value: int) -> None:
        self.limits.command_bytes_max = value


def _slow_ns(us: int) -> float:
    return us * NS_PER_US if us >= 0 else math.inf
