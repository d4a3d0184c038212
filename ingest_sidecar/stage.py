"""Staging: from the object store to this node's disk, verified while it streams.

Rules:
- A file has its final name only when its size and SHA-256 are the manifest's; before that it is `.part`, and goes on from its end.
- A broken connection is repeated with backoff, each time from the last byte.
- Wrong bytes are never repeated: the object itself is wrong. Only where a part of them came from this disk (a `.part` torn by a power cut),
  everything is fetched once more before the object is blamed.
- A download ends at its next chunk once it is told to stop; its `.part` stays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from ingest_sidecar.plan import PlannedFile
from pipeline.format.errors import ChecksumMismatchError, StoreUnavailableError
from pipeline.format.layout import PARTIAL_SUFFIX
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 6  # per file and turn; the reconcile loop comes back for more
BACKOFF_S_MAX = 10.0
READ_BYTES = 1 << 20

Counter = Callable[[int], None]
"""Told how many bytes were staged; a negative number takes back."""


class DownloadStopped(Exception):  # noqa: N818 -- no failure: it was asked for
    """The download was told to stop."""


def stage_file(store: ObjectStore, planned: PlannedFile, folder: Path, node: str, count: Counter, stopped: Event) -> Path:
    """Bring one file to `folder`; its path. A file that is there already is only measured.

    Raises:
        ChecksumMismatchError: the object's bytes are not what the manifest says; nothing of it stays.
        StoreError: the object could not be read.
        DownloadStopped: `stopped` was set.
    """
    final = folder / planned.name
    if final.exists() and final.stat().st_size == planned.file.bytes:
        count(planned.file.bytes)
        return final
    folder.mkdir(parents=True, exist_ok=True)
    part = final.with_name(final.name + PARTIAL_SUFFIX)
    resumed = part.exists() and part.stat().st_size > 0
    download = _fetched(store, planned, part, count, stopped)
    if resumed and not download.is_right():
        download.discard()
        download = _fetched(store, planned, part, count, stopped)
    if not download.is_right():
        download.discard()
        raise download.mismatch(node)
    part.replace(final)
    return final


def _fetched(store: ObjectStore, planned: PlannedFile, part: Path, count: Counter, stopped: Event) -> _Download:
    download = _Download(store, planned, part, count, stopped)
    attempts = Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_after_attempt(ATTEMPTS_MAX) | stop_when_event_set(stopped),
        wait=wait_random_exponential(max=BACKOFF_S_MAX),
        sleep=sleep_using_event(stopped),
        reraise=True,
    )
    attempts(download.go_on)
    return download


class _Download:
    """One file under way: its hash runs along; what an earlier process left is hashed again first."""

    def __init__(self, store: ObjectStore, planned: PlannedFile, part: Path, count: Counter, stopped: Event) -> None:
        self._store, self._file, self._part, self._count, self._stopped = store, planned.file, part, count, stopped
        self._sha256 = hashlib.sha256()
        self._have = 0
        if part.exists():
            with part.open("rb") as left:
                while chunk := left.read(READ_BYTES):
                    self._note(chunk)

    def go_on(self) -> None:
        """Fetch what is missing. An object longer than promised is not read to its end."""
        with self._part.open("ab") as sink:
            if self._have < self._file.bytes:
                for chunk in self._store.stream(self._file.object_key, self._have, READ_BYTES):
                    sink.write(chunk)
                    self._note(chunk)
                    if self._have > self._file.bytes:
                        break
            sink.flush()
            os.fsync(sink.fileno())

    def is_right(self) -> bool:
        """Whether size and SHA-256 are the manifest's."""
        return (self._have, self._sha256.hexdigest()) == (self._file.bytes, self._file.sha256)

    def discard(self) -> None:
        """Throw away what is there."""
        self._part.unlink()
        self._count(-self._have)

    def mismatch(self, node: str) -> ChecksumMismatchError:
        """What to say of wrong bytes."""
        file, found = self._file, self._sha256.hexdigest()
        message = (
            f"{file.object_key} as read on {node} has {self._have} bytes and SHA-256 {found}, the manifest says {file.bytes} bytes "
            f"and {file.sha256}: nothing of it was ingested; build the version again under a new id"
        )
        return ChecksumMismatchError(message, object=file.object_key, node=node, found=found, expected=file.sha256)

    def _note(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._have += len(chunk)
        self._count(len(chunk))
        if self._stopped.is_set():
            raise DownloadStopped
