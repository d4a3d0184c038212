"""Staging one file: from the object store to this node's disk in ranges, verified while they arrive.

Rules:
- Ranges are fetched at the same time and written in their order: `.part` is always a beginning of the file, so it goes on from its end
  after whatever happened, and the SHA-256 runs along. What arrives ahead of its turn waits in memory, RANGES_AHEAD_MAX ranges at most.
- A file has its final name only when its size and SHA-256 are the manifest's.
- All ranges of a file are of one object: each asks for the ETag of the first (If-Match), which lies beside `.part`, for the next start.
- A broken connection is repeated with backoff, each time from the last byte that came.
- Wrong bytes are never repeated: the object itself is wrong. Only where a part of them came from this disk (a `.part` torn by a power cut),
  everything is fetched once more before the object is blamed.
- A download ends at its next chunk once it is told to stop; its `.part` stays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from ingest_sidecar.bandwidth import TokenBucket
from ingest_sidecar.plan import PlannedFile
from pipeline.format.errors import ChecksumMismatchError, IngestProcessError, ObjectChangedError, RedkvError, StoreUnavailableError
from pipeline.format.layout import ETAG_SUFFIX, PARTIAL_SUFFIX
from pipeline.store import ObjectStore

ATTEMPTS_MAX = 6  # per range without a byte between them; the reconcile loop comes back for more
BACKOFF_S_MAX = 10.0
RANGE_BYTES = 8 << 20  # large enough that a request's latency does not count, small enough to wait in memory
RANGES_AHEAD_MAX = 4  # of one file, the one in turn among them
CHUNK_BYTES = 128 << 10  # between two looks at the bandwidth and the stop sign
_READ_BYTES = 1 << 20

Counter = Callable[[int], None]
"""Told how many bytes were staged; a negative number takes back."""


class DownloadStopped(Exception):  # noqa: N818 -- no failure: it was asked for
    """The download was told to stop."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What downloads share: `retried` is told of every broken connection, `stopped` ends them all."""

    store: ObjectStore
    bucket: TokenBucket
    node: str
    count: Counter
    retried: Callable[[RedkvError], None]
    stopped: Event
    range_bytes: int = RANGE_BYTES


class StagedFile:
    """One file under way; its methods run in threads. `begin`, `fetch` of all `ranges`, then `finish`; that again if it answers False."""

    def __init__(self, tools: Tools, planned: PlannedFile, folder: Path) -> None:
        self._tools, self._file = tools, planned.file
        self.final = folder / planned.name
        self._part = self.final.with_name(planned.name + PARTIAL_SUFFIX)
        self._noted = self.final.with_name(planned.name + ETAG_SUFFIX)
        self._lock = Lock()
        self._reset()

    def _reset(self) -> None:
        self._sha256 = hashlib.sha256()
        self._have = 0  # bytes on the disk, which is where the next one goes
        self._resumed = False
        self._etag: str | None = None
        self._wrong_size: int | None = None
        self._ahead: dict[int, list[bytes]] = {}  # by the place in the file where they begin

    def begin(self) -> bool:
        """Take what is there; True if that is the whole file, verified when it came."""
        self._reset()
        if self.final.exists() and self.final.stat().st_size == self._file.bytes:
            self._tools.count(self._file.bytes)
            return True
        self._part.parent.mkdir(parents=True, exist_ok=True)
        if self._part.exists() and self._part.stat().st_size > self._file.bytes:
            self._part.unlink()
        if self._part.exists():
            with self._part.open("rb") as left:
                while chunk := left.read(_READ_BYTES):
                    self._note(chunk)
        self._resumed = self._have > 0
        if self._resumed and self._noted.exists():
            self._etag = self._noted.read_text()
        return False

    def ranges(self) -> Iterator[tuple[int, int]]:
        """What is missing, in order, each as start and end."""
        for start in range(self._have, self._file.bytes, self._tools.range_bytes):
            yield start, min(start + self._tools.range_bytes, self._file.bytes)

    def fetch(self, start: int, end: int) -> None:
        """Bring one range.

        Raises:
            ObjectChangedError, StoreError: as named.
            DownloadStopped: it was told to stop.
        """
        place, stopped = start, self._tools.stopped
        while place < end and self._wrong_size is None:
            before = place
            try:
                for attempt in self._attempts():
                    with attempt:
                        for chunk in self._answered(place, end):
                            self._arrived(place, chunk)
                            place += len(chunk)
            except StoreUnavailableError:
                if place == before or stopped.is_set():  # not a byte in all attempts
                    raise
            if place == before and self._wrong_size is None:
                raise StoreUnavailableError(f"the store answered for {self._file.object_key} without a byte", object=self._file.object_key)

    def finish(self) -> bool:
        """Verify and give the file its name; False if what was left here was wrong, and all of it must be fetched.

        Raises:
            ChecksumMismatchError: the object's bytes are not what the manifest says; nothing of it stays.
            IngestProcessError: they are, but not on the disk; nothing of it stays.
        """
        if (self._have, self._sha256.hexdigest()) == (self._file.bytes, self._file.sha256) and self._wrong_size is None:
            with self._part.open("rb") as whole:
                os.fsync(whole.fileno())
                there = os.fstat(whole.fileno()).st_size
            if there != self._have:
                raise self._disturbed(there)
            self._part.replace(self.final)
            self._noted.unlink(missing_ok=True)
            return True
        self._part.unlink(missing_ok=True)
        self._noted.unlink(missing_ok=True)
        self._tools.count(-self._have)
        if self._resumed and self._wrong_size is None:
            return False
        raise self._mismatch()

    def _disturbed(self, there: int) -> IngestProcessError:
        self._part.unlink()
        self._noted.unlink(missing_ok=True)
        self._tools.count(-self._have)
        message = f"{self._part} has {there} bytes, {self._have} were written: something else writes there; it is fetched again"
        return IngestProcessError(message, object=self._file.object_key, node=self._tools.node)

    def _attempts(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_attempt(ATTEMPTS_MAX) | stop_when_event_set(self._tools.stopped),
            wait=wait_random_exponential(max=BACKOFF_S_MAX),
            sleep=sleep_using_event(self._tools.stopped),
            before_sleep=self._broke,
            reraise=True,
        )

    def _broke(self, state: RetryCallState) -> None:
        failed = state.outcome.exception() if state.outcome else None
        if isinstance(failed, RedkvError):
            self._tools.retried(failed)

    def _answered(self, start: int, end: int) -> Iterator[bytes]:
        try:
            part = self._tools.store.open_range(self._file.object_key, start, end, self._etag, CHUNK_BYTES)
            if part is None or part.size != self._file.bytes:
                self._wrong_size = part.size if part else start
                return
            self._is_one_object(part.etag)
        except ObjectChangedError:
            self._noted.unlink(missing_ok=True)  # the next try goes by the SHA-256 alone, and may find the object mended
            raise
        yield from part.chunks

    def _is_one_object(self, etag: str) -> None:
        """Note the ETag of the first answer, before a byte of it is written; whoever asked at the same time is held to it."""
        with self._lock:
            if self._etag is None:
                self._noted.write_text(etag)
                self._etag = etag
        if etag != self._etag:
            raise self._tools.store.changed(self._file.object_key)

    def _arrived(self, place: int, chunk: bytes) -> None:
        self._tools.bucket.take(len(chunk), self._tools.stopped)
        with self._lock:
            self._ahead.setdefault(place, []).append(chunk)
            self._write_ahead()
        if self._tools.stopped.is_set():
            raise DownloadStopped

    def _write_ahead(self) -> None:
        """Write what is in turn."""
        if self._have not in self._ahead:
            return
        with self._part.open("ab") as sink:
            while chunks := self._ahead.pop(self._have, None):
                for chunk in chunks:
                    sink.write(chunk)
                    self._note(chunk)

    def _note(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._have += len(chunk)
        self._tools.count(len(chunk))

    def _mismatch(self) -> ChecksumMismatchError:
        file, node = self._file, self._tools.node
        size = self._have if self._wrong_size is None else self._wrong_size
        found = self._sha256.hexdigest() if self._wrong_size is None else "not computed"
        message = (
            f"{file.object_key} as read on {node} has {size} bytes and SHA-256 {found}, the manifest says {file.bytes} bytes "
            f"and {file.sha256}: nothing of it was ingested; build the version again under a new id"
        )
        return ChecksumMismatchError(message, object=file.object_key, node=node, found=found, expected=file.sha256)


def staged_bytes(folder: Path, files: Sequence[PlannedFile]) -> dict[str, int]:
    """How many bytes of each file are there, by its name."""
    found = {}
    for one in files:
        for path in (folder / one.name, folder / (one.name + PARTIAL_SUFFIX)):
            if path.exists():
                found[one.name] = path.stat().st_size
    return found
