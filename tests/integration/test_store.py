"""The object store against a real S3: what each call does, and which typed error each failure becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
from pipeline.store import ObjectStore
from tests.support.ports import free_port
from tests.support.s3 import S3

LARGE = bytes(range(256)) * 20_000  # 5 MB: SeaweedFS keeps it in more than one piece


@pytest.fixture
def store(server: S3) -> ObjectStore:
    return server.fresh().store


def test_create_then_read(store: ObjectStore) -> None:
    etag = store.create("a/b", b"one")
    found = store.get("a/b")
    assert (found.data, found.etag) == (b"one", etag)
    assert store.size("a/b") == 3


def test_create_does_not_replace(store: ObjectStore) -> None:
    store.create("a", b"one")
    with pytest.raises(ConflictError, match=r"refused to create s3://.*/a"):
        store.create("a", b"two")
    assert store.get("a").data == b"one"


def test_of_racing_creates_one_wins(store: ObjectStore) -> None:
    def create(number: int) -> bool:
        try:
            store.create("raced", b"%d" % number)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as racers:
        won = list(racers.map(create, range(8)))
    assert won.count(True) == 1
    assert store.get("raced").data == b"%d" % won.index(True)


def test_replace_needs_the_etag_that_was_read(store: ObjectStore) -> None:
    first = store.create("doc", b"one")
    second = store.replace("doc", b"two", first)
    with pytest.raises(ConflictError):
        store.replace("doc", b"three", first)
    assert store.get("doc").data == b"two"
    assert store.replace("doc", b"three", second) == store.get("doc").etag


def test_of_racing_replaces_one_wins(store: ObjectStore) -> None:
    etag = store.create("doc", b"start")

    def replace(number: int) -> bool:
        try:
            store.replace("doc", b"%d" % number, etag)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as racers:
        won = list(racers.map(replace, range(8)))
    assert won.count(True) == 1
    assert store.get("doc").data == b"%d" % won.index(True)


def test_replace_of_nothing(store: ObjectStore) -> None:
    with pytest.raises((ConflictError, ObjectMissingError)):
        store.replace("gone", b"x", '"0123456789abcdef0123456789abcdef"')
    assert list(store.list("")) == []


def test_get_if_changed(store: ObjectStore) -> None:
    etag = store.create("doc", b"one")
    assert store.get_if_changed("doc", etag) is None
    fresh = store.replace("doc", b"two", etag)
    found = store.get_if_changed("doc", etag)
    assert found is not None
    assert (found.data, found.etag) == (b"two", fresh)
    whole = store.get_if_changed("doc", None)
    assert whole is not None
    assert whole.data == b"two"


def test_upload_and_read_in_ranges(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    store.upload(path, "file", hashlib.sha256(LARGE).hexdigest())
    assert store.size("file") == len(LARGE)
    part = store.open_range("file", 1_000_003, 3_000_000, chunk_bytes=700_001)
    assert part is not None
    chunks = list(part.chunks)
    assert (part.size, b"".join(chunks)) == (len(LARGE), LARGE[1_000_003:3_000_000])
    assert {len(chunk) for chunk in chunks[:-1]} == {700_001}
    same = store.open_range("file", 0, 10, part.etag)
    assert same is not None
    assert b"".join(same.chunks) == LARGE[:10]


def test_a_range_of_an_object_that_was_written_anew_is_refused(store: ObjectStore) -> None:
    etag = store.create("file", b"before")
    store.delete("file")
    store.create("file", b"after!")
    with pytest.raises(ObjectChangedError, match="written anew"):
        store.open_range("file", 0, 3, etag)


def test_upload_of_other_bytes_than_the_sha256_says_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    with pytest.raises(StoreError, match="refused to upload"):
        store.upload(path, "file", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ObjectMissingError):
        store.get("file")


def test_a_range_from_the_very_end(store: ObjectStore) -> None:
    """A download that broke after its last byte goes on from there."""
    store.create("file", b"12345")
    assert store.open_range("file", 5, 10) is None
    store.create("empty", b"")
    empty = store.open_range("empty", 0, 10)
    assert empty is None or b"".join(empty.chunks) == b""


def test_list_stays_below_the_root_and_the_prefix(server: S3) -> None:
    one, other = server.fresh().store, server.fresh().store
    for key in ("a/1", "a/2", "b/1"):
        one.create(key, key.encode())
    other.create("a/9", b"")
    assert sorted((found.key, found.size) for found in one.list("a/")) == [("a/1", 3), ("a/2", 3)]
    assert sorted(found.key for found in one.list("")) == ["a/1", "a/2", "b/1"]
    assert all(found.modified_s > 1_700_000_000 for found in one.list(""))


def test_list_goes_over_pages(store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1_100)]  # S3 gives 1,000 a page
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda key: store.create(key, b""), keys))
    assert [found.key for found in store.list("many/")] == keys


def test_delete_twice(store: ObjectStore) -> None:
    store.create("a", b"")
    store.delete("a")
    store.delete("a")
    assert list(store.list("")) == []


READS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("no/such"),
    "get_if_changed": lambda store: store.get_if_changed("no/such", None),
    "open_range": lambda store: store.open_range("no/such", 0, 10),
    "size": lambda store: store.size("no/such"),
}
LISTS: dict[str, Callable[[ObjectStore], object]] = {"list": lambda store: list(store.list(""))}
WRITES: dict[str, Callable[[ObjectStore], object]] = {
    "create": lambda store: store.create("k", b""),
    "replace": lambda store: store.replace("k", b"", '"e"'),
    "delete": lambda store: store.delete("k"),
}


@pytest.mark.parametrize("name", READS)
def test_missing_object(store: ObjectStore, name: str) -> None:
    with pytest.raises(ObjectMissingError) as raised:
        READS[name](store)
    assert raised.value.fields["object"] == f"{store.root}/no/such"


def test_missing_bucket(server: S3) -> None:
    with pytest.raises(ObjectMissingError):
        ObjectStore("s3://no-such-bucket/root").get("key")
    with pytest.raises(ObjectMissingError):
        list(ObjectStore("s3://no-such-bucket/root").list(""))


@pytest.mark.parametrize("name", [*READS, *WRITES, *LISTS])
@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(server: S3, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    monkeypatch.setenv(wrong, "wrong")
    with pytest.raises(StoreAccessError):
        (READS | WRITES | LISTS)[name](server.fresh().store)


def test_no_credentials(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StoreAccessError, match="could not read"):
        server.store.get("key")


@pytest.fixture
def nobody(server: S3, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store whose endpoint refuses connections. boto3's own repetitions are tested by boto3; here one attempt is enough."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("pipeline.store.ATTEMPTS_MAX", 1)
    return ObjectStore("s3://redkv/root")


@pytest.mark.parametrize("name", READS)
def test_nobody_answers_a_read(nobody: ObjectStore, name: str) -> None:
    with pytest.raises(StoreUnavailableError, match="could not"):
        READS[name](nobody)


@pytest.mark.parametrize("name", WRITES)
def test_nobody_answers_a_write(nobody: ObjectStore, name: str) -> None:
    """A refused connection took no byte of the request, yet an earlier repetition may have: look before writing again."""
    with pytest.raises(OutcomeUnknownError, match="could not see whether"):
        WRITES[name](nobody)


@pytest.mark.parametrize("root", ["redkv/root", "http://redkv/root", "s3:///root", ""])
def test_root_that_is_no_s3_address(root: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        ObjectStore(root)
