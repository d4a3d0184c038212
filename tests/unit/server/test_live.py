from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.keys import local_key
from server.storage.live import LiveStore
from server.storage.rocks import BlockCache, Database

KEYS = st.binary(max_size=3)
SLOT_WRITES = st.dictionaries(
    st.builds(lambda slot, rest: slot + rest, st.sampled_from([b"\x00\x00", b"\x3f\xff"]), KEYS), st.binary(max_size=4)
)
WRITES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=4)), max_size=12)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database.open_live(tmp_path_factory.mktemp("live") / "db", BlockCache(1 << 20), 1 << 20)
    yield opened
    opened.close()


@given(before=WRITES, after=WRITES, start=KEYS)
def test_pending_writes_are_read_as_if_they_were_in_the_database(
    database: Database, before: dict[bytes, bytes | None], after: dict[bytes, bytes | None], start: bytes
) -> None:
    store = LiveStore(database)
    expected: dict[bytes, bytes] = {}
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    for writes in (before, after):
        for key, value in writes.items():
            if value is None:
                store.delete(key)
                expected.pop(key, None)
            else:
                store.put(key, value)
                expected[key] = value
        if writes is before:
            store.commit()
    for _ in range(2):  # pending, then committed
        keys = sorted({*before, *after, start})
        assert [store.get(key) for key in keys] == store.get_many(keys) == [expected.get(key) for key in keys]
        assert list(store.entries_from(start)) == sorted((key, value) for key, value in expected.items() if key >= start)
        below = sorted(((key, value) for key, value in expected.items() if key <= start), reverse=True)
        assert list(store.entries_from(start, backwards=True)) == below
        store.commit()
    assert store.pending_bytes == 0
    assert not store.commit()


@given(before=WRITES, steps=st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=4))), max_size=40), start=KEYS, head=KEYS)
def test_a_walk_below_a_head_sees_every_write_as_it_comes(
    database: Database, before: dict[bytes, bytes | None], steps: list[tuple[bytes, bytes | None]], start: bytes, head: bytes
) -> None:
    store = LiveStore(database)
    expected = {key: value for key, value in before.items() if value is not None}
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    database.write(expected.items())
    for key, value in steps:
        early = store.entries_from(start, head=head)
        wanted = sorted(entry for entry in expected.items() if entry[0] >= start and entry[0].startswith(head))
        if value is None:
            store.delete(key)
            expected.pop(key, None)
        else:
            store.put(key, value)
            expected[key] = value
        assert [entry for entry in early if entry[0].startswith(head)] == wanted, "an iterator sees what was there when it was made"
        late = store.entries_from(start, backwards=True, head=head)
        below = sorted((entry for entry in expected.items() if entry[0] <= start and entry[0].startswith(head)), reverse=True)
        assert [entry for entry in late if entry[0].startswith(head)] == below
    store.discard()


@given(before=SLOT_WRITES, pending=SLOT_WRITES, after=SLOT_WRITES)
def test_a_clearing_is_a_write_like_others(
    database: Database, before: dict[bytes, bytes], pending: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    note = (local_key(b"note"), b"the shard's own")
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    database.write([*before.items(), note])
    store = LiveStore(database)
    for writes in (pending, after):
        for key, value in writes.items():
            store.put(key, value)
        if writes is pending:
            store.clear()
    expected = sorted(after.items())
    for key in {*before, *pending, *after}:
        assert store.get(key) == after.get(key)
        assert store.get_many([key]) == [after.get(key)]
    assert list(store.entries_from(b"")) == expected
    assert list(store.keys_from(b"")) == [key for key, _ in expected]
    assert store.pending_bytes > 0
    assert store.commit()
    assert list(store.entries_from(b"")) == list(database.entries_from(b"")) == [*expected, note]
    assert list(store.keys_from(b"")) == [key for key, _ in [*expected, note]]
    assert not store.commit()


def test_a_clearing_can_be_taken_back(database: Database) -> None:
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    store = LiveStore(database)
    store.put(b"a", b"1")
    store.commit()
    store.clear()
    assert store.get(b"a") is None
    store.discard()
    assert store.get(b"a") == b"1"


def test_what_is_written_early_outlives_a_clearing_before_it(database: Database) -> None:
    store = LiveStore(database)
    store.clear()
    store.write_early([(b"b", b"2")])
    store.commit()
    store.write_early([(b"c", b"3")])
    assert [store.get(key) for key in (b"b", b"c")] == [b"2", b"3"]


def test_an_iterator_sees_what_was_there_when_it_was_made(database: Database) -> None:
    store = LiveStore(database)
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    store.put(b"a", b"1")
    store.commit()
    store.put(b"b", b"2")
    seen = store.entries_from(b"")
    store.put(b"c", b"3")
    store.delete(b"a")
    store.commit()
    assert list(seen) == [(b"a", b"1"), (b"b", b"2")]
