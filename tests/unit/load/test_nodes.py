"""Sidecars that answer, refuse, hang and trickle, on real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from pipeline.format.errors import SidecarUnavailableError
from pipeline.format.topology import Node, Topology
from pipeline.load import nodes
from pipeline.load.nodes import Nodes
from pipeline.load.status import NodeStatus

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(status: str, body: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status.encode(), len(body)) + body)
        await writer.drain()
        await reader.read()

    return handle


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        with suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0.01)


def following(node: str, epoch: int) -> Handler:
    return says("200 OK", NodeStatus(node=node, desired_epoch=epoch, topology_epoch=1).to_json())


@contextmanager
def sidecars(**handlers: Handler) -> Iterator[Topology]:
    """One server on a free port per node."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    async def start(handler: Handler) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            finally:
                writer.transport.abort()

        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def stop() -> None:
        for server in servers.values():
            server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections are closed in the next turn

    servers = {name: asyncio.run_coroutine_threadsafe(start(handler), loop).result() for name, handler in handlers.items()}
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    try:
        yield topology(**{name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def topology(**urls: str) -> Topology:
    return Topology(cluster="c", epoch=1, nodes=tuple(Node(name=name, sidecar_url=url, shards=()) for name, url in urls.items()))


@pytest.mark.parametrize("silent", [hangs, trickles])
def test_a_node_that_hangs_or_trickles_is_named_and_holds_nobody_up(silent: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    with sidecars(a=following("a", 7), b=silent) as cluster, Nodes(cluster) as asked:
        while isinstance((told := asked.statuses(wait_s=0.1))["a"], SidecarUnavailableError):
            pass  # however slow this process is
        assert isinstance(told["a"], NodeStatus)
        assert told["a"].desired_epoch == 7
        assert isinstance(told["b"], SidecarUnavailableError)
    monkeypatch.setattr(nodes, "ANSWER_S_MAX", 0.3)
    with sidecars(b=silent) as cluster, Nodes(cluster) as asked:
        told = asked.statuses()
    assert isinstance(told["b"], SidecarUnavailableError)
    assert "the sidecar of b at http://127.0.0.1:" in told["b"].message
    assert "no answer within 0.3 s" in told["b"].message
    assert told["b"].fields["node"] == "b"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (says("503 Service Unavailable", b""), "it answers with HTTP status 503"),
        (says("200 OK", b"<html>"), "the status of a is not JSON"),
        (says("200 OK", b'{"format_version": 9}'), "this software reads up to 1"),
    ],
)
def test_an_answer_that_is_none_is_named(handler: Handler, reason: str) -> None:
    with sidecars(a=handler) as cluster, Nodes(cluster) as asked:
        told = asked.statuses()["a"]
    assert isinstance(told, SidecarUnavailableError)
    assert reason in told.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://["])
def test_an_address_where_nobody_is_is_named(url: str) -> None:
    with Nodes(topology(a=url)) as asked:
        asked.wake()
        assert isinstance(asked.statuses()["a"], SidecarUnavailableError)


def test_leaving_ends_open_questions_at_once() -> None:
    with sidecars(a=hangs) as cluster:
        with Nodes(cluster) as asked:
            asked.statuses(wait_s=0.0)
        assert not asked._thread.is_alive()


def test_leaving_at_any_moment_of_a_question_leaves_nothing_behind() -> None:
    with sidecars(a=hangs, b=hangs) as cluster:
        for wait_ms in range(10):
            for _ in range(3):
                with Nodes(cluster) as asked:
                    asked.statuses(wait_s=wait_ms / 1000)
                gc.collect()  # what was left half-done would warn now, and a warning is an error here


def test_a_cluster_without_nodes_has_nothing_to_say() -> None:
    with Nodes(topology()) as asked:
        asked.wake()
        assert asked.statuses() == {}
