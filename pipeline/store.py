"""The object store: the only module that imports boto3.

Rules:
- Keys are relative to the root `s3://bucket/prefix`; credentials, region and endpoint come from the standard AWS chain, unless a caller
  names them.
- Every foreign error becomes one of `StoreError`'s children here. boto3 itself repeats what is safe to repeat.
- Conditional writes are the only way to change a document that others write too.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ReadTimeoutError
from botocore.exceptions import ConnectionError as BotoConnectionError

from pipeline.format.errors import (
    ConflictError,
    ObjectChangedError,
    ObjectMissingError,
    OutcomeUnknownError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60  # S3 keeps a stalled body open; a minute without a byte is a broken connection
ATTEMPTS_MAX = 5
POOL_CONNECTIONS_MAX = 32
SINGLE_PUT_BYTES_MAX = 5 << 30  # S3's limit of one PUT

_DESCRIPTIONS = botocore.loaders.create_loader()  # what S3 is, parsed once per process: it costs a client a tenth of a second
_NOT_MODIFIED = 304
_RANGE_NOT_SATISFIABLE = 416
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED = frozenset(
    {"401", "403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "Forbidden"}
)
_CONFLICT = frozenset({"409", "412", "PreconditionFailed", "ConditionalRequestConflict"})
_BUSY = frozenset({"500", "502", "503", "504", "429", "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "Throttling"})


@dataclass(frozen=True, slots=True)
class Access:
    """What the standard AWS chain would find, named by the caller: for the local stack, which must not meet the user's own account."""

    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Blob:
    """A small object as read: its bytes and its ETag."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object: key relative to the root, bytes, last change in seconds since the epoch."""

    key: str
    size: int
    modified_s: float


@dataclass(frozen=True, slots=True)
class Part:
    """A range of an object as it arrives: the object's ETag and its size in bytes, and the bytes in chunks."""

    etag: str
    size: int
    chunks: Iterator[bytes]


class ObjectStore:
    """One root in an S3-compatible store. Thread-safe, as boto3 clients are. `silence_s_max`: so long a silence is a broken connection."""

    def __init__(self, root: str, access: Access | None = None, silence_s_max: float = READ_TIMEOUT_S) -> None:
        address = urlsplit(root)
        if address.scheme != "s3" or not address.netloc:
            raise UsageError(f"store {root!r} is no S3 address: write s3://bucket/prefix", store=root)
        self.root = root
        self._bucket = address.netloc
        path = address.path.strip("/")
        self._prefix = f"{path}/" if path else ""
        self._client = _new_client(access, silence_s_max)

    def get(self, key: str) -> Blob:
        """Read a small object.

        Raises:
            ObjectMissingError, StoreError: as named.
        """
        with self._translated("read", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return Blob(answer["Body"].read(), answer["ETag"])

    def get_if_changed(self, key: str, etag: str | None) -> Blob | None:
        """Read a small object unless it still has that ETag; None if it has."""
        try:
            condition: dict[str, Any] = {"IfNoneMatch": etag} if etag else {}
            with self._translated("read", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **condition)
                return Blob(answer["Body"].read(), answer["ETag"])
        except _NotModified:
            return None

    def create(self, key: str, data: bytes) -> str:
        """Write an object that must not exist yet; its ETag.

        Raises:
            ConflictError: it exists. A client's own repetition can meet its first attempt: read back and compare.
        """
        with self._translated("create", key, writes=True):
            return self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*")["ETag"]

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write an object that must still have that ETag; the new ETag.

        Raises:
            ConflictError: somebody else wrote it, or a repetition met its own first attempt: read back and compare.
        """
        with self._translated("replace", key, writes=True):
            return self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, IfMatch=etag)["ETag"]

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Write a file under a key that nobody else uses; the store checks the SHA-256 (hex) on arrival."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        with self._translated("upload", key, writes=True), path.open("rb") as source:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=source, ChecksumSHA256=checksum)

    def open_range(self, key: str, start: int, end: int, etag: str | None = None, chunk_bytes: int = 1 << 20) -> Part | None:
        """The bytes of an object from `start` up to, without, `end`, or to its end; None if it has none there.

        Raises:
            ObjectChangedError: it does not have that ETag any more.
            StoreUnavailableError: also while the chunks are read: the connection broke; go on from where the bytes ended.
        """
        condition: dict[str, Any] = {"IfMatch": etag} if etag else {}
        try:
            with self._translated("read", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=f"bytes={start}-{end - 1}", **condition)
        except _NothingThere:
            return None
        except ConflictError as changed:
            raise self.changed(key) from changed
        if etag is not None and answer["ETag"] != etag:  # a store that does not know If-Match here
            answer["Body"].close()
            raise self.changed(key)
        size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
        return Part(answer["ETag"], size, self._chunks(key, answer["Body"], chunk_bytes))

    def _chunks(self, key: str, body: Any, chunk_bytes: int) -> Iterator[bytes]:
        with self._translated("read", key), closing(body):
            yield from body.iter_chunks(chunk_bytes)

    def changed(self, key: str) -> ObjectChangedError:
        """The failure of a reader that met another object than before under the same key."""
        where = f"{self.root.rstrip('/')}/{key}"
        message = f"{where} was written anew while it was read: objects of a version never change; build it again under a new id"
        return ObjectChangedError(message, object=key)

    def size(self, key: str) -> int:
        """The bytes of an object."""
        with self._translated("look at", key):
            return self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["ContentLength"]

    def list(self, under: str) -> Iterator[ObjectInfo]:
        """All objects whose keys start with `under`."""
        with self._translated("list", under):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under):
                for entry in page.get("Contents", []):
                    yield ObjectInfo(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"].timestamp())

    def folders(self, under: str) -> Iterator[str]:
        """The names of the folders directly below `under`, which ends with a slash."""
        with self._translated("list", under):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under, Delimiter="/")
            for page in pages:
                for entry in page.get("CommonPrefixes", []):
                    yield entry["Prefix"].removeprefix(self._prefix + under).rstrip("/")

    def delete(self, key: str) -> None:
        """Remove an object; no error if it is gone already."""
        with self._translated("delete", key, writes=True):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextmanager
    def _translated(self, verb: str, key: str, *, writes: bool = False) -> Iterator[None]:
        where = f"{self.root.rstrip('/')}/{key}"
        try:
            yield
        except ClientError as refused:
            raise _refusal(refused, verb, where) from refused
        except (ReadTimeoutError, BotoConnectionError, HTTPClientError, IncompleteReadError) as broken:
            if writes:
                message = f"could not see whether the store took '{verb} {where}': {broken}"
                raise OutcomeUnknownError(message, object=where) from broken
            raise StoreUnavailableError(f"could not {verb} {where}: {broken}", object=where) from broken
        except BotoCoreError as failed:
            raise StoreAccessError(f"could not {verb} {where}: {failed}", object=where) from failed


class _NotModified(Exception):  # noqa: N818 -- not an error: the answer 304
    pass


class _NothingThere(Exception):  # noqa: N818 -- not an error: the answer 416 to a range that begins at the end
    pass


def _refusal(refused: ClientError, verb: str, where: str) -> Exception:
    code = str(refused.response.get("Error", {}).get("Code", ""))
    status = refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == _NOT_MODIFIED:
        return _NotModified()
    if status == _RANGE_NOT_SATISFIABLE:
        return _NothingThere()
    kinds = ((_MISSING, ObjectMissingError), (_DENIED, StoreAccessError), (_CONFLICT, ConflictError), (_BUSY, StoreUnavailableError))
    kind = next((kind for codes, kind in kinds if code in codes or str(status) in codes), StoreError)
    return kind(f"the store refused to {verb} {where}: {refused}", object=where, code=code, status=status)


def _new_client(access: Access | None, silence_s_max: float) -> S3Client:
    settings = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=silence_s_max,
        max_pool_connections=POOL_CONNECTIONS_MAX,
        retries={"max_attempts": ATTEMPTS_MAX, "mode": "standard"},
        request_checksum_calculation="when_required",  # uploads carry a SHA-256 of their own
    )
    core = botocore.session.get_session()
    if access is None:
        session = boto3.session.Session(botocore_session=core)
        endpoint = None
    else:
        session = boto3.session.Session(access.access_key, access.secret_key, region_name=access.region, botocore_session=core)
        endpoint = access.endpoint
    core.register_component("data_loader", _DESCRIPTIONS)
    return session.client("s3", endpoint_url=endpoint, config=settings)
