"""A shard without its sockets, in the test's own process: bytes in, bytes out, on a real database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.format.errors import NodeError
from pipeline.format.layout import ShardPaths
from pipeline.format.slots import SLOT_COUNT, SlotRange
from pipeline.format.topology import Node, Shard, Topology
from server.assembly import assembled
from server.executor import Executor
from server.resp import texts
from server.resp.parser import Limits, Parser
from server.resp.replies import error
from server.session import Services, Session
from server.settings import ShardSettings
from server.storage.versions import Defer

NOW_MS = 1_800_000_000_000
CACHE_BYTES = 1 << 20


class Core:
    """The shard of all slots, at NOW_MS for ever."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._executor = Executor(services.table, services)

    def clear(self) -> None:
        """Forget all keys."""
        engine = self.services.engine
        engine.live.database.write([(key, None) for key, _ in engine.live.entries_from(b"")])
        engine.dataset_changed(None)

    async def replies(self, chunks: Iterable[bytes], limits: Limits | None = None) -> list[bytes]:
        """What a new connection is told, command by command, when these bytes come in; the protocol error last."""
        parser = Parser(limits or Limits())
        session = Session(self.services, 1, "127.0.0.1:1", "127.0.0.1:2", admin=False)
        told: list[bytes] = []
        try:
            for chunk in chunks:
                commands = parser.feed(chunk)
                place = 0
                while place < len(commands) and not session.closing:
                    run = self._executor.run(session, commands, place)
                    assert run.next_place > place, "a run that does not come on would never end"
                    first, place = place, run.next_place
                    try:
                        self.services.engine.live.commit()
                        told += run.replies
                    except NodeError as failed:  # as net/connection.py tells it
                        told += self._executor.unwritten(commands[first:place], run.replies, failed)
                    if run.waiting is not None:
                        told.append(await self._executor.finish(session, commands[place - 1], run.waiting))
                if session.closing:
                    return told
            if parser.error is not None:
                told.append(error(texts.protocol_error(parser.error)))
            return told
        finally:
            self.services.watching.unwatch(session)


@contextmanager
def shard_core(root: Path, defer: Defer = lambda work: work()) -> Iterator[Core]:
    """One core on an empty database in `root`; `defer` runs a function at the end of the turn, which is at once where nobody says."""
    paths = ShardPaths(root)
    settings = ShardSettings(name="one", data_dir=root, port=20_000, admin_socket=root / "admin.sock", block_cache_bytes=CACHE_BYTES)
    owner = Shard(name="one", host="127.0.0.1", port=20_000, slots=(SlotRange(first=0, last=SLOT_COUNT - 1),))
    root.mkdir(parents=True, exist_ok=True)
    node = Node(name="node-1", sidecar_url="http://127.0.0.1:1", shards=(owner,))
    paths.topology.write_bytes(Topology(cluster="test", epoch=1, nodes=(node,)).to_json())
    with assembled(settings, lambda: NOW_MS, defer) as services:
        yield Core(services)
