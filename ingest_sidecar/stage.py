"""Staging: from the object store to this node's disk, verified while it streams.

Rules:
- A file has its final name only when its size and SHA-256 are the manifest's; before that it is `.part`, and goes on from its end.
- A broken connection is repeated with backoff, each time from the last byte; wrong bytes are never repeated: the object itself is wrong.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ingest_sidecar.plan import PlannedFile
from pipeline.format.errors import ChecksumMismatchError, StoreUnavailableError
from pipeline.format.layout import PARTIAL_SUFFIX
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 6  # per file and turn; the reconcile loop comes back for more
BACKOFF_S_MAX = 10.0
READ_BYTES = 1 << 20

Counter = Callable[[int], None]
"""Told how many bytes were staged; a negative number takes back."""


def stage_file(store: ObjectStore, planned: PlannedFile, folder: Path, node: str, count: Counter) -> Path:
    """Bring one file to `folder`; its path. A file that is there already is only measured.

    Raises:
        ChecksumMismatchError: the object's bytes are not what the manifest says; nothing of it stays.
        StoreError: the object could not be read.
    """
    final = folder / planned.name
    if final.exists() and final.stat().st_size == planned.file.bytes:
        count(planned.file.bytes)
        return final
    folder.mkdir(parents=True, exist_ok=True)
    download = _Download(store, planned, final.with_name(final.name + PARTIAL_SUFFIX), count)
    attempts = Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_after_attempt(ATTEMPTS_MAX),
        wait=wait_random_exponential(max=BACKOFF_S_MAX),
        reraise=True,
    )
    attempts(download.go_on)
    download.check(node)
    download.part.replace(final)
    return final


class _Download:
    """One file under way: its hash runs along; what an earlier process left is hashed again first."""

    def __init__(self, store: ObjectStore, planned: PlannedFile, part: Path, count: Counter) -> None:
        self.part = part
        self._store, self._planned, self._count = store, planned, count
        self._sha256 = hashlib.sha256()
        self._have = 0
        if part.exists():
            self._take_over()

    def go_on(self) -> None:
        """Fetch what is missing."""
        with self.part.open("ab") as sink:
            if self._have < self._planned.file.bytes:
                for chunk in self._store.stream(self._planned.file.object_key, self._have, READ_BYTES):
                    sink.write(chunk)
                    self._note(chunk)
            sink.flush()
            os.fsync(sink.fileno())

    def check(self, node: str) -> None:
        """Whether it is what the manifest says; if not, nothing of it stays."""
        file, found = self._planned.file, self._sha256.hexdigest()
        if (self._have, found) == (file.bytes, file.sha256):
            return
        self.part.unlink()
        self._count(-self._have)
        message = (
            f"{file.object_key} as read on {node} has {self._have} bytes and SHA-256 {found}, the manifest says {file.bytes} bytes "
            f"and {file.sha256}: nothing of it was ingested; build the version again under a new id"
        )
        raise ChecksumMismatchError(message, object=file.object_key, node=node, found=found, expected=file.sha256)

    def _take_over(self) -> None:
        with self.part.open("rb") as left:
            while chunk := left.read(READ_BYTES):
                self._note(chunk)

    def _note(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._have += len(chunk)
        self._count(len(chunk))
