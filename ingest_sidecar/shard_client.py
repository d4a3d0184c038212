"""Speaking to a shard of this node: admin commands and pinned reads, RESP2 over its Unix socket.

Refusals come out as the shard's own typed errors; a socket that does not answer is a ShardUnavailableError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ingest_sidecar.settings import OwnShard
from pipeline.format.admin import COMMAND, AdminCommand, ShardStatus, decode_refusal
from pipeline.format.desired import DesiredDataset
from pipeline.format.errors import RedkvError, ShardUnavailableError
from pipeline.format.values import bulk

ANSWER_WAIT_S = 30.0  # opening a version takes milliseconds; a registration walks the slots beside the readers

READ_COMMANDS = {"string": ("GET",), "hash": ("HGETALL",), "zset": ("ZRANGE",)}
_READ_TAILS: dict[str, tuple[str, ...]] = {"zset": ("0", "-1", "WITHSCORES")}


class ShardClient:
    """One shard's admin socket. Every call is a connection of its own: calls are rare, and a shard may restart between them."""

    def __init__(self, shard: OwnShard) -> None:
        self.shard = shard

    async def status(self) -> ShardStatus:
        """What the shard serves."""
        raw = await self.admin(AdminCommand.STATUS)
        return ShardStatus.from_json(raw, f"the status of shard {self.shard.name}")

    async def admin(self, command: AdminCommand, *words: str) -> Any:
        """One admin command; its reply.

        Raises:
            ShardUnavailableError: no answer.
            RedkvError: the shard's refusal.
        """
        async with self._connection() as connection:
            return await self._ask(connection, COMMAND, str(command), *words)

    @asynccontextmanager
    async def pinned(self, dataset: str, version: str) -> AsyncIterator[PinnedReader]:
        """Reads of one opened version, active or not."""
        async with self._connection() as connection:
            await self._ask(connection, COMMAND, str(AdminCommand.PIN), dataset, version)
            yield PinnedReader(self, connection)

    @asynccontextmanager
    async def unpinned(self) -> AsyncIterator[PinnedReader]:
        """Reads of what clients read."""
        async with self._connection() as connection:
            yield PinnedReader(self, connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[UnixDomainSocketConnection]:
        connection = UnixDomainSocketConnection(
            path=str(self.shard.admin_socket), protocol=2, socket_timeout=ANSWER_WAIT_S, socket_connect_timeout=ANSWER_WAIT_S
        )
        try:
            await self._guarded(connection.connect())  # type: ignore[no-untyped-call]  # redis-py's
            yield connection
        finally:
            await connection.disconnect(nowait=True)

    async def _ask(self, connection: UnixDomainSocketConnection, *words: str | bytes) -> Any:
        async def exchange() -> Any:
            await connection.send_command(*words)
            return await connection.read_response()

        return await self._guarded(exchange())

    async def _guarded(self, work: Any) -> Any:
        try:
            return await work
        except ResponseError as refused:
            raise decode_refusal(str(refused)) from refused
        except (RedisConnectionError, RedisTimeoutError, OSError) as away:
            message = f"shard {self.shard.name} does not answer on {self.shard.admin_socket} ({away}): look whether it runs"
            raise ShardUnavailableError(message, shard=self.shard.name) from away


async def tell_expected(client: ShardClient, shard: ShardStatus, dataset: str, wanted: DesiredDataset | None) -> RedkvError | None:
    """Let a shard know which version of a dataset clients shall read, if it does not; what it refused."""
    known = shard.datasets.get(dataset)
    if wanted is not None and wanted.mode == "upsert":
        return None  # its keys are nobody's but their clients'
    version = wanted.active.version if wanted and wanted.active else None
    if version == (known.expected if known else None):
        return None
    try:
        if wanted is not None and known is None:
            await client.admin(AdminCommand.REGISTER, dataset, wanted.prefix)
        await client.admin(AdminCommand.EXPECT, dataset, version or "")
    except RedkvError as refused:
        return refused
    return None


class PinnedReader:
    """Reads of one version, or of what clients read."""

    def __init__(self, client: ShardClient, connection: UnixDomainSocketConnection) -> None:
        self._client, self._connection = client, connection

    async def reply(self, kind: str, key: bytes) -> bytes:
        """The RESP2 bytes of the whole value of a key, read as clients read it."""
        answer = await self._client._ask(self._connection, *READ_COMMANDS[kind], key, *_READ_TAILS.get(kind, ()))  # noqa: SLF001 -- one module
        return _resp2(answer)


def _resp2(answer: Any) -> bytes:
    match answer:
        case None:
            return b"$-1\r\n"
        case bytes():
            return bulk(answer)
        case list():
            return b"*%d\r\n" % len(answer) + b"".join(map(_resp2, answer))
        case _:
            raise TypeError(f"a value's reply holds {answer!r}, which no data type of ours has")
