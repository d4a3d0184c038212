"""What the coordinator says to the nodes and hears from them, over HTTP, all nodes at once.

Rules:
- A node that does not answer is an answer of its own, a `SidecarUnavailableError`; it never holds the others up.
- Every node has at most one open question of a kind. A look waits for all answers only so long as its caller says; of a node that still
  thinks, it gives the last answer, until ANSWER_S_MAX makes an error of its silence.

The questions are asked by an event loop in a thread of its own, so that callers stay plain functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import SecretStr

from pipeline.format.errors import FormatError, RedkvError, SidecarUnavailableError
from pipeline.format.topology import Node, Topology
from pipeline.load.status import NodeStatus, VersionCheck

CHECK_S_MAX = 60.0  # some hundred reads per shard, behind the readers
ANSWER_S_MAX = 5.0  # a status is made from memory: a sidecar that needs longer is in trouble
LOOK_S_MAX = 0.5  # within a load: news of the others is shown though one node thinks
CONNECTIONS_MAX = 256  # one per node and question; file descriptors end at 1024 on many machines

Answer = NodeStatus | SidecarUnavailableError
T = TypeVar("T")

_FAILURES = (httpx.HTTPError, httpx.InvalidURL, TimeoutError)


class Nodes:
    """All sidecars of a cluster. A context manager: it holds connections and a thread, and leaving it ends open questions at once."""

    def __init__(self, topology: Topology, token: SecretStr | None = None) -> None:
        self.topology = topology
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="nodes", daemon=True)
        self._thread.start()
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._client = httpx.AsyncClient(timeout=ANSWER_S_MAX, trust_env=False, limits=limits, headers=headers)
        self._asked: dict[str, Future[Answer]] = {}
        self._last: dict[str, Answer] = {}
        self._open: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def statuses(self, wait_s: float = ANSWER_S_MAX + 1.0) -> dict[str, Answer]:
        """What every node says, by node name, after at most `wait_s`; by default all have answered, or failed to, by then."""
        for node in self.topology.nodes:
            if node.name not in self._asked:
                self._asked[node.name] = self._ask(self._status, node)
        answered, _ = wait(self._asked.values(), timeout=wait_s)
        for name in [name for name, question in self._asked.items() if question in answered]:
            self._last[name] = self._asked.pop(name).result()
        return {
            node.name: self._last.get(node.name) or _unavailable(node, f"no answer within {wait_s:g} s") for node in self.topology.nodes
        }

    def wake(self) -> None:
        """Tell every node that the desired state changed. One that misses it finds out by its own poll."""
        wait([self._ask(self._wake, node) for node in self.topology.nodes], timeout=LOOK_S_MAX)

    def say(self, action: str, dataset: str, version: str) -> dict[str, RedkvError | None]:
        """Control one version on all nodes (pause, resume, retry); what each refused, None where it was taken."""

        async def told(node: Node) -> RedkvError | None:
            answer = await self._posted(node, f"versions/{dataset}/{version}/{action}", ANSWER_S_MAX)
            return answer if isinstance(answer, RedkvError) else None

        return self._all(told)

    def check(self, dataset: str, version: str) -> dict[str, VersionCheck | RedkvError]:
        """Let all nodes look at one version again; what each found, or why it could not."""

        async def looked(node: Node) -> VersionCheck | RedkvError:
            answer = await self._posted(node, f"versions/{dataset}/{version}/check", CHECK_S_MAX)
            return answer if isinstance(answer, RedkvError) else VersionCheck.from_json(answer, f"the check of {node.name}")

        return self._all(looked)

    def _all(self, question: Callable[[Node], Coroutine[Any, Any, T]]) -> dict[str, T]:
        asked = {node.name: self._ask(question, node) for node in self.topology.nodes}
        return {name: one.result() for name, one in asked.items()}

    async def _posted(self, node: Node, what: str, wait_s: float) -> bytes | RedkvError:
        """The answer to a POST, or the refusal that the node says by name."""
        try:
            async with asyncio.timeout(wait_s):
                answer = await self._client.post(f"{node.sidecar_url.rstrip('/')}/v1/{what}", timeout=wait_s)
            if answer.is_error and answer.headers.get("content-type", "").startswith("application/json"):
                return RedkvError.from_json(answer.json())
            return answer.raise_for_status().content
        except _FAILURES as failed:
            return _unavailable(node, _reason(failed))

    def _ask(self, question: Callable[[Node], Coroutine[Any, Any, T]], node: Node) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._asking(question, node), self._loop)

    async def _asking(self, question: Callable[[Node], Coroutine[Any, Any, T]], node: Node) -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine always runs in a task
        self._open.add(task)
        try:
            return await question(node)
        finally:
            self._open.discard(task)

    async def _status(self, node: Node) -> Answer:
        try:
            return NodeStatus.from_json(await self._answered("GET", node, "status"), f"the status of {node.name}")
        except (*_FAILURES, FormatError) as failed:
            return _unavailable(node, _reason(failed))

    async def _wake(self, node: Node) -> SidecarUnavailableError | None:
        try:
            await self._answered("POST", node, "wake")
        except _FAILURES as failed:
            return _unavailable(node, _reason(failed))
        return None

    async def _answered(self, method: str, node: Node, what: str) -> bytes:
        # httpx's own limit is per read: a node that sends a byte now and then would hold us for ever
        async with asyncio.timeout(ANSWER_S_MAX):
            answer = await self._client.request(method, f"{node.sidecar_url.rstrip('/')}/v1/{what}")
            return answer.raise_for_status().content

    async def _close(self) -> None:
        questions = list(self._open)  # whatever else runs here belongs to one of them, and ends with it
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        await self._client.aclose()


def _reason(failed: Exception) -> str:
    match failed:
        case httpx.HTTPStatusError() if failed.response.status_code == httpx.codes.UNAUTHORIZED:
            return "it asks for its token: set sidecar_token in the settings"
        case httpx.HTTPStatusError():
            return f"it answers with HTTP status {failed.response.status_code}"
        case TimeoutError() | httpx.TimeoutException():
            return f"no answer within {ANSWER_S_MAX:g} s"
        case _:
            return str(failed) or type(failed).__name__


def _unavailable(node: Node, reason: str) -> SidecarUnavailableError:
    message = f"the sidecar of {node.name} at {node.sidecar_url} does not answer ({reason}): look whether it runs"
    return SidecarUnavailableError(message, node=node.name, url=node.sidecar_url)
