"""The work on this node's versions: at most one piece per version, started when its goal asks for it, repeated when it failed.

Rules:
- A version's failure is its own: the others go on.
- A retryable failure is repeated with backoff, within the same piece of work. Each repetition begins at the first step, so only one that
  comes further than any before is a reason to begin the backoff anew.
- A fatal one ends it. It is tried again, slowly, while clients shall read the version; else only once the desired state was written
  anew, or somebody asked (a wake-up): until then it stands, so that whoever waits for the version hears of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from ingest_sidecar.disk import disk_failure
from ingest_sidecar.documents import Hold
from ingest_sidecar.metrics import Metrics
from ingest_sidecar.plan import Slots
from ingest_sidecar.version import VersionOnNode
from pipeline.format.admin import ShardStatus
from pipeline.format.desired import Goal
from pipeline.format.errors import IllegalTransitionError, IngestProcessError, Outcome, RedkvError, VersionCancelledError
from pipeline.load.progress import RANK
from pipeline.load.states import Event, State

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
FATAL_BACKOFF_S_MIN = 2.0  # longer than a coordinator needs to see the failure
FATAL_BACKOFF_S_MAX = 120.0  # wrong bytes are fetched again so often: cheap enough to mend itself when the object is
RETIRE_LOOK_S = 0.1  # between two looks whether the successor is active

Key = tuple[str, str]
"""Dataset and version."""


@dataclass(slots=True)
class _Fatal:
    """A fatal failure: the desired epoch that was followed then, and when to try again by itself."""

    epoch: int
    wait_s: float
    again_at: float


@dataclass(frozen=True, slots=True)
class Following:
    """What the node follows now; `held` are the slots of each shard, owned or replicated."""

    epoch: int
    held: Mapping[str, Slots]


class Work:
    """The pieces of work under way. `following` and `ask_shards` give the newest; `ended` is called after each piece."""

    def __init__(
        self,
        following: Callable[[], Following],
        ask_shards: Callable[[], Awaitable[Mapping[str, ShardStatus]]],
        ended: Callable[[], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._following, self._ask_shards, self._told_end, self._clock, self._sleep = following, ask_shards, ended, clock, sleep
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._fatal: dict[Key, _Fatal] = {}
        self._metrics = metrics
        self._log = structlog.get_logger("ingest_sidecar")

    def __contains__(self, key: Key) -> bool:
        return key in self._tasks

    @property
    def busy(self) -> frozenset[Key]:
        """The versions that work still touches."""
        return frozenset(self._tasks)

    def start(
        self, key: Key, version: VersionOnNode, hold: Hold | None, shards: Mapping[str, ShardStatus], *, judged: bool, asked: bool
    ) -> None:
        """Start what a version needs, if anything, and if no operator holds it. `judged`: the shards' words are newer than the last work on
        it; `asked`: somebody asked for another try of what failed.

        Raises:
            RedkvError: what is on disk can't be read.
        """
        following, progress = self._following(), version.progress
        progress.paused = hold is Hold.PAUSED
        if hold is not None and progress.state is not State.ACTIVE:
            _rest(version, hold)
            return
        if progress.state in _STEPS:  # its work was stopped within a step: what is there is found again
            progress.apply(Event.REMOVE)
        if progress.state is State.FAILED:
            if not self._is_due_again(key, version, following.epoch, asked=asked):
                return
            progress.apply(Event.RETRY)
        if judged and version.fell_back(shards, following.held):
            if progress.state is State.ACTIVE:
                progress.apply(Event.RETIRE)
            progress.apply(Event.REMOVE)  # made and activated again, from what is there
        version.observe(following.held, shards)
        if not is_due(progress.state, version.wanted.goal):
            return
        task = asyncio.create_task(self._bring(key, version), name=f"{key[0]} {key[1]}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._ended(key))

    def stop(self, key: Key) -> None:
        """Ask the work on a version to end; it is busy until it has."""
        if key in self._tasks:
            _cancel(self._tasks[key])

    def forget(self, key: Key) -> None:
        """A version is wanted no more, or by another build."""
        self.stop(key)
        self._fatal.pop(key, None)

    def clear(self, key: Key) -> None:
        """A failure of it counts no more: it is tried again at once."""
        self._fatal.pop(key, None)

    async def stop_all(self) -> None:
        """Ask everything to end, and wait for that."""
        tasks = list(self._tasks.values())
        for task in tasks:
            _cancel(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_due_again(self, key: Key, version: VersionOnNode, epoch: int, *, asked: bool) -> bool:
        fatal = self._fatal.get(key)
        if fatal is None or asked or epoch > fatal.epoch:
            return True
        return version.wanted.goal is Goal.ACTIVE and self._clock() >= fatal.again_at

    def _ended(self, key: Key) -> None:
        del self._tasks[key]
        self._told_end()  # for what waited for it: a removal, a build under the same id

    async def _bring(self, key: Key, version: VersionOnNode) -> None:
        """Work on one version until it has reached its goal, which may move on meanwhile."""
        backoff_s, furthest = BACKOFF_S_MIN, RANK[version.progress.state]
        while is_due(version.progress.state, version.wanted.goal):
            step = _step_of(version)
            try:
                with self._metrics.step(step):
                    await self._step(version)
                version.progress.error = None
                if (reached := RANK[version.progress.state]) > furthest:
                    backoff_s, furthest = BACKOFF_S_MIN, reached
            except Exception as failed:  # noqa: BLE001 -- one version's failure stays its own, whatever it is; noted and shown
                if not await self._failed(key, version, self._named(version, failed), step, backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
        self._fatal.pop(key, None)

    def _named(self, version: VersionOnNode, failed: Exception) -> RedkvError:
        what = f"{version.dataset} {version.wanted.version}, {version.progress.step},"
        match failed:
            case RedkvError():
                return failed
            case OSError():
                return disk_failure(failed, what)
            case _:
                self._log.error("unforeseen failure", exc_info=failed, dataset=version.dataset, version=version.wanted.version)
                return IngestProcessError(f"{what} met an unforeseen failure: {failed!r}; see the sidecar's log")

    async def _step(self, version: VersionOnNode) -> None:
        held = self._following().held
        match version.progress.state:
            case State.ABSENT if version.wanted.goal is not Goal.RETIRED:
                await version.stage(held)
            case State.STAGED:
                await version.ingest(held)
            case State.READY | State.ACTIVE if version.wanted.goal is Goal.RETIRED:
                if not await version.retire(await self._ask_shards()):  # its successor is not active here yet
                    await asyncio.sleep(RETIRE_LOOK_S)
            case State.READY | State.RETIRED:
                await version.activate()
            case other:  # only work leaves these states, and it does not end within one
                raise IllegalTransitionError(f"{version.dataset} {version.wanted.version} is {other}, from where no work starts")

    async def _failed(self, key: Key, version: VersionOnNode, failed: RedkvError, step: str, backoff_s: float) -> bool:
        """Note a failure; True if the step is to be repeated, after a pause."""
        self._log.error("step failed", dataset=version.dataset, version=version.wanted.version, **failed.to_json())
        version.progress.error = failed
        version.progress.apply(Event.FAIL)
        if failed.outcome is Outcome.FATAL:
            before = self._fatal.get(key)
            wait_s = min(2 * before.wait_s, FATAL_BACKOFF_S_MAX) if before else FATAL_BACKOFF_S_MIN
            self._fatal[key] = _Fatal(self._following().epoch, wait_s, self._clock() + wait_s * random.uniform(0.5, 1.0))
            return False
        self._metrics.retried(step, failed)
        await self._sleep(backoff_s * random.uniform(0.5, 1.0))
        version.progress.apply(Event.RETRY)
        return True


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel it once only: asked again, it would no longer wait for its threads, and the next work would begin beside them."""
    if not task.cancelling():
        task.cancel()


def _step_of(version: VersionOnNode) -> str:
    """The name of the next step, for metrics."""
    if version.wanted.goal is Goal.RETIRED:
        return "retire"
    return {State.ABSENT: "stage", State.STAGED: "ingest"}.get(version.progress.state, "activate")


def _rest(version: VersionOnNode, hold: Hold) -> None:
    """Where a version stands that an operator holds, and that no work touches."""
    progress = version.progress
    if hold is Hold.PAUSED:
        if progress.state in _STEPS:
            progress.apply(Event.REMOVE)  # what is staged is found again
        if progress.step != _PAUSED:
            progress.at(_PAUSED)
    elif not isinstance(progress.error, VersionCancelledError):
        what = f"{version.dataset} {version.wanted.version}"
        if progress.state is not State.FAILED:
            progress.apply(Event.FAIL)
        progress.error = VersionCancelledError(
            f"{what} was cancelled on this node: `retry` it there, or load it again",
            dataset=version.dataset,
            version=version.wanted.version,
        )


_PAUSED = "paused by an operator"
_STEPS = frozenset({State.STAGING, State.INGESTING})

_ENOUGH = {
    Goal.STAGED: {State.STAGED, State.INGESTING, State.READY, State.ACTIVE, State.RETIRED},
    Goal.READY: {State.READY, State.ACTIVE, State.RETIRED},
    Goal.ACTIVE: {State.ACTIVE},
    Goal.RETIRED: {State.ABSENT, State.STAGING, State.STAGED, State.INGESTING, State.RETIRED},
}
"""The states that a goal is content with. A version to be retired that was never ready is left where it is."""


def is_due(state: State, goal: Goal) -> bool:
    """Whether a version in that state needs work to reach that goal."""
    return state not in _ENOUGH[goal]
