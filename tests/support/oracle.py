"""The same commands to a real redis-server 7.0 and to a shard of ours, over raw sockets: what each of them answered."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient
from tests.support.shards import ShardProcess, topology_of
from tests.support.versions import ALL_SLOTS

Ports = tuple[int, int]
"""Of redis-server, and of the shard."""
Clients = tuple[RawClient, RawClient]
"""Connections to these."""
Same = Callable[[list[bytes], bytes, bytes], bool]
"""Whether two replies to a command, of Redis and of the shard, say the same."""

LATELY = 50  # commands: more than lie between one that sets a time to live, and one that asks for it


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
def both_clients(ports: Ports, protocol: int) -> Iterator[Clients]:
    """A connection to each, in one protocol version."""
    with ExitStack() as stack:
        redis, shard = (stack.enter_context(RawClient(port)) for port in ports)
        for client in (redis, shard):
            client.call("HELLO", protocol)
        yield redis, shard


def words_of(line: str) -> list[bytes]:
    """The words of a line as a shell takes it apart; `\\x00` and its like stand for bytes."""
    return [word.encode().decode("unicode_escape").encode("latin-1") for word in shlex.split(line, posix=True)]


def differences(ports: Ports, protocol: int, lines: Iterable[str], same: Same | None = None) -> list[str]:
    """Where the two differ; a line that begins with `2> ` is said by a second connection. Both are empty at the end."""
    with both_clients(ports, protocol) as first, both_clients(ports, protocol) as second:
        found = differing(first, second, lines, same)
        for client in first:
            client.call("FLUSHALL")
    return found


def differing(first: Clients, second: Clients, lines: Iterable[str], same: Same | None = None) -> list[str]:
    """The same of open connections, and without an end."""
    found = []
    begun = deque[float](maxlen=LATELY)
    for line in filter(None, lines):
        text, clients = (line.removeprefix("2> "), second) if line.startswith("2> ") else (line, first)
        words = words_of(text)
        begun.append(monotonic())
        expected, got = (client.call(*words) for client in clients)
        equal = same(words, expected, got) if same else expected == got
        if not equal and not (words[0].upper() == b"TTL" and _aged(expected, got, monotonic() - begun[0])):
            found.append(f"{line}\n  redis {expected[:300]!r}\n  shard {got[:300]!r}")
    return found


def _aged(one: bytes, other: bytes, passed_s: float) -> bool:
    """Whether two times to live differ by no more than what went by between them: both are rounded to the nearest second, so they are the
    same to the byte unless half a second has.
    """
    seconds = [int(reply[1:]) for reply in (one, other) if reply.startswith(b":")]
    return len(seconds) == 2 and min(seconds) >= 0 and max(seconds) - min(seconds) <= int(passed_s + 0.5)
