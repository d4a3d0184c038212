"""Ingestion as the sidecar sees it: a process of its own per version, at low priority, so that the shards' readers come first.

::

    standard input   := IngestJob (job.py), one line; then pace*, open as long as the sidecar lives: at its end the process ends itself
    pace             := the share of time that it may run from now on, 0 to 1, one line
    standard output  := answer*, one line of JSON each; the last one has `made` or `error`
    answer           := {"bytes": checked so far} | {"made": [shard*]} | {"error": RedkvError}

The process holds the node's lock too (sidecar.lock), so a sidecar that starts again waits until it is gone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from ingest_sidecar.job import IngestJob
from pipeline.format.errors import IngestProcessError, RedkvError

LOG_BYTES_SHOWN = 2000
PACE_LOOK_S = 0.5  # the governor decides once a second
LINE_BYTES_MAX = 1 << 20  # of an answer; a refusal with its fields takes a few hundred

BytesSeen = Callable[[int], None]
"""Told how many bytes are checked so far."""


async def run_ingest(job: IngestJob, lock: int, pace: Callable[[], float], seen: BytesSeen) -> None:
    """Make and publish the version directories of a job. `lock` is the descriptor of the node's lock,
    `pace` gives the share of time that the process may run.

    Raises:
        RedkvError: as the process names it.
        IngestProcessError: it died without a word.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(("-P",) if sys.flags.safe_path else ()),  # as this process was started: the working directory may hold anything
        "-m",
        "ingest_sidecar.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(lock,),
        limit=LINE_BYTES_MAX,
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 -- all three were asked for above
    log = asyncio.ensure_future(_last_words(process.stderr))
    pacing = asyncio.ensure_future(_keep_pace(process.stdin, pace))
    try:
        with suppress(ConnectionError):  # it died before it had read its job: its exit code tells
            process.stdin.write(job.to_line())
            await process.stdin.drain()
        answer = await _last_answer(process.stdout, seen)
        await process.wait()
        said = await log
    finally:
        log.cancel()
        pacing.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()
    if "error" in answer:
        raise RedkvError.from_json(answer["error"])
    if "made" in answer and process.returncode == 0:
        return
    text = said.decode(errors="replace").strip() or "it said nothing"
    message = f"the ingest process of {job.dataset} {job.version} ended with code {process.returncode}: {text}"
    raise IngestProcessError(message, dataset=job.dataset, version=job.version, code=process.returncode)


async def _last_answer(answers: asyncio.StreamReader, seen: BytesSeen) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async for line in answers:
        if not line.endswith(b"\n"):
            break  # it died within a word
        last = from_json(line)
        if "bytes" in last:
            seen(last["bytes"])
    return last


async def _last_words(log: asyncio.StreamReader) -> bytes:
    """The end of what it logs, however much that is."""
    last = b""
    while chunk := await log.read(LOG_BYTES_SHOWN):
        last = (last + chunk)[-LOG_BYTES_SHOWN:]
    return last


async def _keep_pace(sink: asyncio.StreamWriter, pace: Callable[[], float]) -> None:
    """Tell the process every other pace; it begins at 1."""
    told = 1.0
    with suppress(ConnectionError):  # it ended
        while True:
            await asyncio.sleep(PACE_LOOK_S)
            if pace() != told:
                told = pace()
                sink.write(f"{told}\n".encode())
                await sink.drain()
