from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.keys import Kind, element_head, local_key, marker_key, meta_key
from pipeline.format.slots import SLOT_COUNT
from server.resp.replies import ReplyError
from server.storage.datasets import Dataset, DatasetIndex, nothing
from server.storage.keyspace import ALL_SLOTS, Keyspace, MetaWalk, encode_position, parse_position
from server.storage.live import LiveStore
from server.storage.pointers import DatasetPointer
from server.storage.rocks import BlockCache, Database

SLOTS = st.sampled_from([0, 1, 2, 300, SLOT_COUNT - 1])
USER_KEYS = st.binary(max_size=3)
INTERNAL = st.one_of(
    st.builds(meta_key, USER_KEYS, SLOTS),
    st.builds(meta_key, USER_KEYS, SLOTS),
    st.builds(
        lambda kind, key, slot: element_head(kind, key, 1, slot) + b"12345678",
        st.sampled_from([Kind.HASH_FIELD, Kind.ZSET_RANK]),
        USER_KEYS,
        SLOTS,
    ),
    st.builds(marker_key, SLOTS, USER_KEYS),
    st.builds(local_key, USER_KEYS),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database.open_live(tmp_path_factory.mktemp("live") / "db", BlockCache(1 << 20), 1 << 20)
    yield opened
    opened.close()


@given(stored=st.sets(INTERNAL), pending=st.sets(INTERNAL), wanted=st.sets(SLOTS), breaks=st.sets(st.integers(0, 20)))
def test_a_walk_meets_the_metas_of_wanted_slots_in_order_wherever_it_is_taken_up_again(
    database: Database, stored: set[bytes], pending: set[bytes], wanted: set[int], breaks: set[int]
) -> None:
    database.write([(key, None) for key, _ in database.entries_from(b"")])
    database.write((key, b"v") for key in stored)
    live = LiveStore(database)
    for key in pending:
        live.put(key, b"v")
    slots = bytes(slot in wanted for slot in range(SLOT_COUNT))
    found = []
    walk, steps = MetaWalk(live.entries_from, slots), 0
    while walk.position is not None:
        if steps in breaks:
            walk = MetaWalk(live.entries_from, slots, walk.position)
        entry = walk.step()
        steps += 1
        if entry is not None:
            found.append(entry[0])
    metas = sorted(key for key in stored | pending if key[2] == Kind.META and int.from_bytes(key[:2]) in wanted)
    assert found == [key[3:] for key in metas]
    assert walk.step() is None
    assert steps <= len(found) + 2 * 5 + 1  # a leap out of every slot, and one into it, and the end


def test_sources_are_the_live_keys_then_datasets_by_name(database: Database) -> None:
    index = DatasetIndex()
    keyspace = Keyspace(LiveStore(database), index, {}, lambda _: None)
    assert [source.name for source in keyspace.all()] == [""]
    dataset = Dataset(DatasetPointer(dataset="b", prefix="b:", active="1"), nothing)
    index.add(dataset)
    index.add(Dataset(DatasetPointer(dataset="a", prefix="a:"), nothing))
    assert [source.name for source in keyspace.all()] == [""]  # neither has a version
    dataset.refuse("could not be opened")
    with pytest.raises(ReplyError, match="LOADING dataset 'b'"):
        list(keyspace.all())


@given(key=st.binary())
def test_a_position_is_read_back(database: Database, key: bytes) -> None:
    source = Keyspace(LiveStore(database), DatasetIndex(), {}, lambda _: None).live
    assert parse_position(encode_position(source, key)) == ("", key)


def test_what_is_no_position_is_the_beginning() -> None:
    assert parse_position(b"") == parse_position(b"hscan\x00x") == ("", meta_key(b"", 0))
    assert len(ALL_SLOTS) == SLOT_COUNT
