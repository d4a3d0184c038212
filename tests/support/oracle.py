"""The same commands to a real redis-server 7.0 and to a shard of ours, over raw sockets: what each of them answered."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, topology_of
from tests.support.versions import ALL_SLOTS

Ports = tuple[int, int]
"""Of redis-server, and of the shard."""


@contextmanager
def both_servers(root: Path, options: dict[str, int] | None = None) -> Iterator[Ports]:
    """A redis-server and a shard, both empty and owning all slots. Keep `root` short: a Unix socket's path is limited."""
    with running_redis(root) as redis_port:
        shard = ShardProcess("node-1-a", root / "s", free_port(), options or {})
        shard.follow(topology_of([shard], [ALL_SLOTS]))
        shard.start()
        try:
            yield redis_port, shard.port
        finally:
            shard.stop()


@contextmanager
def both_clients(ports: Ports, protocol: int) -> Iterator[tuple[RawClient, RawClient]]:
    """A connection to each, in one protocol version."""
    with ExitStack() as stack:
        redis, shard = (stack.enter_context(RawClient(port)) for port in ports)
        for client in (redis, shard):
            client.call("HELLO", protocol)
        yield redis, shard


def words_of(line: str) -> list[bytes]:
    """The words of a line as a shell takes it apart; `\\x00` and its like stand for bytes."""
    return [word.encode().decode("unicode_escape").encode("latin-1") for word in shlex.split(line, posix=True)]


def differences(ports: Ports, protocol: int, lines: Sequence[str]) -> list[str]:
    """Where the two differ; a line that begins with `2> ` is said by a second connection."""
    found = []
    with both_clients(ports, protocol) as first, both_clients(ports, protocol) as second:
        for line in filter(None, lines):
            text, clients = (line.removeprefix("2> "), second) if line.startswith("2> ") else (line, first)
            expected, got = (client.call(*words_of(text)) for client in clients)
            if expected != got:
                found.append(f"{line}\n  redis {expected[:300]!r}\n  shard {got[:300]!r}")
        for client in first:
            client.call("FLUSHALL")
    return found
