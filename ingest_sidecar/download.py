"""All files of a version at once, each in several ranges at once, within the threads that the node has for downloads.

Rules:
- A file's ranges are asked for in order, RANGES_AHEAD_MAX at a time, and the first is waited for first: memory is bounded by the number of
  threads, not by the sizes of files.
- It ends when every thread has, whether done, failed or cancelled. Of several failures, the gravest speaks for the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ingest_sidecar.plan import PlannedFile
from ingest_sidecar.stage import RANGES_AHEAD_MAX, DownloadStopped, StagedFile, Tools
from pipeline.format.errors import Outcome, RedkvError

FILES_OPEN_MAX = 32  # as many as threads: more would only hold ranges in memory that no thread fetches


async def download(tools: Tools, files: Sequence[PlannedFile], folder: Path, threads: ThreadPoolExecutor, done: Callable[[], None]) -> None:
    """Stage `files` in `folder`; `done` is told of each. `tools.stopped` is set at the end.

    Raises:
        ChecksumMismatchError, StoreError, OSError: of the gravest failure.
    """
    gate = asyncio.Semaphore(FILES_OPEN_MAX)

    async def stage(one: PlannedFile) -> None:
        async with gate:
            await _staged(StagedFile(tools, one, folder), threads)
        done()

    stages = [asyncio.ensure_future(stage(one)) for one in files]
    try:
        if stages:
            await asyncio.wait(stages, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        tools.stopped.set()
        results = await asyncio.gather(*stages, return_exceptions=True)
    failures = [one for one in results if isinstance(one, BaseException) and not isinstance(one, DownloadStopped)]
    if failures:
        raise min(failures, key=lambda one: isinstance(one, RedkvError) and one.outcome is not Outcome.FATAL)


async def _staged(file: StagedFile, threads: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()

    def run(work: Callable[..., Any], *arguments: int) -> asyncio.Future[Any]:
        return loop.run_in_executor(threads, work, *arguments)

    whole = await run(file.begin)
    while not whole:
        under_way: deque[asyncio.Future[Any]] = deque()
        try:
            for start, end in list(file.ranges()):
                if len(under_way) == RANGES_AHEAD_MAX:
                    await under_way.popleft()
                under_way.append(run(file.fetch, start, end))
            while under_way:
                await under_way.popleft()
        finally:
            await asyncio.gather(*under_way, return_exceptions=True)
        whole = await run(file.finish)
        if not whole:
            await run(file.begin)
