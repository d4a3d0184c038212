"""The keyspace as a whole, on a real database: SCAN while others write, long renames, FLUSHALL, what deleted collections leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.format.keys import ELEMENT_KINDS, KIND_AT, local_key
from pipeline.format.slots import key_slot
from pipeline.format.values import encode_string
from server.commands import keyspace
from server.storage.live import ALL_SLOTS
from tests.support.core import NOW_MS, Core, shard_core
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_version

V1, V2 = "2026-11-22", "2026-11-23"
MEMBERS = 3_000

Words = list[bytes]


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with TemporaryDirectory(prefix="c") as folder, shard_core(Path(folder)) as one:
        yield one


@pytest.fixture(scope="module")
def shard() -> Iterator[ShardProcess]:
    with TemporaryDirectory(prefix="s") as folder, running_shards(Path(folder)) as [one]:
        yield one


def run(core: Core, *commands: Words) -> list[bytes]:
    return asyncio.run(core.replies([encode_command(*words) for words in commands]))


def page_of(reply: bytes) -> tuple[bytes, list[bytes]]:
    """Cursor and keys of a page; keys without line breaks only."""
    lines = reply.split(b"\r\n")
    return lines[2], lines[5::2]


def fill(key: bytes, count: int = MEMBERS) -> Words:
    return [b"ZADD", key, *(part for number in range(count) for part in (b"%d" % (number % 97), b"member-%05d" % number))]


def elements(core: Core) -> int:
    return sum(key[KIND_AT] in ELEMENT_KINDS for key in core.services.engine.live.database.keys_from(b""))


def sweep(core: Core) -> None:
    one = core.services.upkeep.sweep
    rounds = one.rounds + 1
    while one.rounds < rounds or one.backlog:
        one.step()


def reclaim(core: Core) -> None:
    one = core.services.upkeep.reclaim
    rounds = one.rounds + 2  # the first one began in the middle
    while one.rounds < rounds:
        one.step()


NAMES = st.sampled_from([b"{t}%d" % number for number in range(12)] + [b"k%d" % number for number in range(12)])
CHANGES = st.lists(st.tuples(st.sampled_from([b"SET", b"ZADD", b"DEL"]), NAMES), max_size=4)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(before=st.sets(NAMES), changes=st.lists(CHANGES, max_size=30), counts=st.lists(st.integers(1, 7), min_size=1))
def test_scan_misses_nothing_that_is_there_all_the_while(
    core: Core, before: set[bytes], changes: list[list[tuple[bytes, bytes]]], counts: list[int]
) -> None:
    run(core, [b"FLUSHALL"], *([b"SET", name, b"1"] for name in before))
    there, always, ever = set(before), set(before), set(before)
    found: list[bytes] = []
    cursor, turn = b"0", 0
    while True:
        (reply,) = run(core, [b"SCAN", cursor, b"COUNT", b"%d" % counts[turn % len(counts)]])
        cursor, keys = page_of(reply)
        assert set(keys) <= there
        found += keys
        if cursor == b"0":
            break
        for name, key in changes[turn] if turn < len(changes) else []:
            run(core, [b"DEL", key], {b"DEL": [b"DEL", key], b"SET": [b"SET", key, b"1"], b"ZADD": fill(key, 200)}[name])
            (there.discard if name == b"DEL" else there.add)(key)
            always &= there
            ever |= there
        turn += 1
    assert always <= set(found) <= ever
    if not any(changes):
        assert sorted(found) == sorted(before)


def test_a_cursor_that_is_not_known_starts_again(core: Core) -> None:
    run(core, [b"FLUSHALL"], *([b"SET", b"k%d" % number, b"1"] for number in range(30)))
    (reply,) = run(core, [b"SCAN", b"12345", b"COUNT", b"1000"])
    assert len(page_of(reply)[1]) == 30
    cursor, _ = page_of(run(core, [b"SCAN", b"0"])[0])
    assert 1 << 62 < int(cursor) < 1 << 63
    assert run(core, [b"SCAN", cursor]) == run(core, [b"SCAN", cursor])


def test_expired_keys_are_left_out_before_they_are_reclaimed(core: Core) -> None:
    run(core, [b"FLUSHALL"], [b"SET", b"stays", b"1"])
    engine = core.services.engine
    engine.write(b"old", key_slot(b"old"), encode_string(b"x", NOW_MS - 1))
    engine.live.commit()
    keys, page, chosen, size = run(core, [b"KEYS", b"*"], [b"SCAN", b"0", b"COUNT", b"100"], [b"RANDOMKEY"], [b"DBSIZE"])
    assert keys == b"*1\r\n$5\r\nstays\r\n"
    assert page_of(page) == (b"0", [b"stays"])
    assert chosen == b"$5\r\nstays\r\n"
    assert size == b":2\r\n"
    reclaim(core)
    assert run(core, [b"DBSIZE"]) == [b":1\r\n"]


def test_every_key_can_be_the_random_one(core: Core) -> None:
    names = [b"{t}%d" % number for number in range(5)] + [b"k%d" % number for number in range(5)]
    run(core, [b"FLUSHALL"], *([b"SET", name, b"1"] for name in names))
    wanted = {b"$%d\r\n%b\r\n" % (len(name), name) for name in names}
    seen: set[bytes] = set()
    while seen != wanted:  # a name that can't be chosen would hold it for ever
        (chosen,) = run(core, [b"RANDOMKEY"])
        assert chosen in wanted
        seen.add(chosen)


def test_the_number_of_live_keys_is_estimated_beyond_a_limit(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    run(core, [b"FLUSHALL"], *([b"SET", b"k%d" % number, b"1"] for number in range(5_000)))
    assert run(core, [b"DBSIZE"]) == [b":5000\r\n"]
    monkeypatch.setattr(keyspace, "LIVE_COUNTED_MAX", 1_000)
    (reply,) = run(core, [b"DBSIZE"])
    assert 3_500 < int(reply[1:]) <= 6_500  # a thousand keys seen: far beyond four standard deviations
    run(core, [b"FLUSHALL"], *([b"SET", b"{t}%d" % number, b"1"] for number in range(1_500)))
    (reply,) = run(core, [b"DBSIZE"])
    assert int(reply[1:]) >= 1_000  # one slot holds all: nothing to go by but RocksDB's own estimate


@pytest.mark.parametrize("away", [[b"DEL", b"z"], [b"UNLINK", b"z"], [b"SET", b"z", b"1"], [b"RENAME", b"z", b"{z}2"], [b"FLUSHALL"]])
def test_what_a_collection_leaves_is_swept(core: Core, away: Words) -> None:
    run(core, [b"FLUSHALL"], fill(b"z"), fill(b"other"))
    assert elements(core) == 4 * MEMBERS
    replies = run(core, away, [b"ZRANGE", b"{z}2", b"0", b"-1"], [b"ZCARD", b"other"])
    sweep(core)
    kept = {b"RENAME": 2, b"FLUSHALL": 0}.get(away[0], 1)
    assert elements(core) == 2 * kept * MEMBERS
    assert run(core, [b"ZRANGE", b"{z}2", b"0", b"-1"], [b"ZCARD", b"other"]) == replies[1:]


def test_an_expired_collection_is_reclaimed_and_swept(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    run(core, [b"FLUSHALL"], fill(b"z"), fill(b"other"), [b"PEXPIREAT", b"z", b"%d" % (NOW_MS + 1)])
    monkeypatch.setattr(core.services.engine, "clock", lambda: NOW_MS + 1)
    sweep(core)
    assert elements(core) == 4 * MEMBERS  # its meta value is still there
    reclaim(core)
    sweep(core)
    assert elements(core) == 2 * MEMBERS


async def renaming_beside(core: Core, others: Iterable[Words]) -> list[list[bytes]]:
    """The replies to a rename and to what others say while it is under way; the sweep goes round all the while."""
    tasks = [asyncio.ensure_future(core.replies([encode_command(b"RENAME", b"{t}z", b"{t}new")]))]
    await asyncio.sleep(0)
    assert core.services.gate.busy
    tasks += [asyncio.ensure_future(core.replies([encode_command(*words)])) for words in others]
    while not tasks[0].done():
        core.services.upkeep.sweep.step()
        core.services.upkeep.reclaim.step()
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


def test_a_rename_over_several_turns_is_one_change_to_others(core: Core) -> None:
    run(core, [b"FLUSHALL"], fill(b"{t}z"), fill(b"{t}new", 500), [b"PEXPIREAT", b"{t}z", b"%d" % (NOW_MS + 99_000)])
    (before,) = run(core, [b"ZRANGE", b"{t}z", b"0", b"-1", b"WITHSCORES"])
    others = [[b"ZCARD", b"{t}new"], [b"EXISTS", b"{t}z"], [b"ZADD", b"{t}new", b"5", b"late"], [b"PTTL", b"{t}new"]]
    replies = asyncio.run(renaming_beside(core, others))
    assert replies == [[b"+OK\r\n"], [b":%d\r\n" % MEMBERS], [b":0\r\n"], [b":1\r\n"], [b":99000\r\n"]]
    run(core, [b"ZREM", b"{t}new", b"late"])
    sweep(core)
    assert run(core, [b"ZRANGE", b"{t}new", b"0", b"-1", b"WITHSCORES"]) == [before]
    assert run(core, [b"ZSCORE", b"{t}new", b"member-00100"]) == [b"$1\r\n3\r\n"]
    assert elements(core) == 2 * MEMBERS


def test_a_hash_is_renamed_and_swept_alike(core: Core) -> None:
    pairs = [part for number in range(MEMBERS) for part in (b"f%05d" % number, b"v%d" % number)]
    run(core, [b"FLUSHALL"], [b"HSET", b"{t}z", *pairs])
    (before,) = run(core, [b"HGETALL", b"{t}z"])
    assert run(core, [b"RENAMENX", b"{t}z", b"{t}new"], [b"HGETALL", b"{t}new"], [b"EXISTS", b"{t}z"]) == [b":1\r\n", before, b":0\r\n"]
    assert elements(core) == 2 * MEMBERS
    sweep(core)
    assert elements(core) == MEMBERS
    assert run(core, [b"HGETALL", b"{t}new"], [b"OBJECT", b"ENCODING", b"{t}new"]) == [before, b"$9\r\nhashtable\r\n"]


def test_a_flush_waits_for_a_rename_under_way(core: Core) -> None:
    run(core, [b"FLUSHALL"], fill(b"{t}z"))
    assert asyncio.run(renaming_beside(core, [[b"FLUSHALL"], [b"DBSIZE"]])) == [[b"+OK\r\n"], [b"+OK\r\n"], [b":1\r\n"]]
    assert run(core, [b"DBSIZE"]) == [b":0\r\n"]
    assert elements(core) == 0


def test_renames_within_a_transaction_survive_its_flush(core: Core) -> None:
    run(core, [b"FLUSHALL"], fill(b"{t}old"))
    run(core, [b"MULTI"], [b"FLUSHALL"], fill(b"{t}z"), [b"RENAME", b"{t}z", b"{t}new"], [b"EXEC"])
    sweep(core)
    assert run(core, [b"ZCARD", b"{t}new"], [b"EXISTS", b"{t}old"]) == [b":%d\r\n" % MEMBERS, b":0\r\n"]
    assert elements(core) == 2 * MEMBERS


def test_flushing_gives_the_space_back_and_keeps_the_shards_notes(core: Core) -> None:
    database = core.services.engine.live.database
    database.put(local_key(b"note"), b"kept")

    async def flush() -> None:
        await core.replies([encode_command(b"FLUSHALL")])
        compaction = core.services.upkeep.compaction
        assert compaction is not None
        await compaction

    run(core, *([b"SET", b"k%d" % number, b"%d" % number * 200] for number in range(2_000)))
    database.compact(*ALL_SLOTS)
    full = database.property("rocksdb.total-sst-files-size")
    asyncio.run(flush())
    assert database.property("rocksdb.total-sst-files-size") < full / 10
    assert [key for key, _ in database.entries_from(b"")] == [local_key(b"note")]


def test_versions_are_scanned_counted_and_never_flushed(shard: ShardProcess) -> None:
    rows = {
        version: {b"d:%d" % number: encode_string(version.encode()) for number in range(first, first + 300)}
        for version, first in ((V1, 0), (V2, 100))
    }
    for version, content in rows.items():
        publish_version(shard.paths, "d", version, content)
    with RawClient(shard.admin_socket) as admin, RawClient(shard.port) as client:
        admin.call("REDKV", "REGISTER", "d", "d:")
        client.call("SET", "mine", "1")
        assert client.call("DBSIZE") == b":1\r\n"
        admin.call("REDKV", "ACTIVATE", "d", V1)
        assert client.call("DBSIZE") == b":301\r\n"
        found, cursor = set[bytes](), b"0"
        for turn in range(1_000):
            cursor, keys = page_of(client.call("SCAN", cursor, "COUNT", 20))
            found |= set(keys)
            if turn == 7:
                admin.call("REDKV", "ACTIVATE", "d", V2)
            if cursor == b"0":
                break
        assert cursor == b"0"
        assert {b"d:%d" % number for number in range(100, 300)} | {b"mine"} <= found <= {*rows[V1], *rows[V2], b"mine"}
        assert client.call("KEYS", "d:?") == b"*0\r\n"
        assert set(page_of(b"\r\n\r\n\r\n" + client.call("KEYS", "*"))[1]) == {*rows[V2], b"mine"}
        assert client.call("OBJECT", "ENCODING", "d:150") == b"$6\r\nembstr\r\n"
        assert client.call("RENAME", "d:150", "x").startswith(b"-CROSSSLOT")
        assert client.call("RENAME", "d:150", "{d:150}").startswith(b"-NOPERM keys under 'd:'")
        refusal = client.call("FLUSHALL")
        assert refusal.startswith(b"-NOPERM FLUSHALL would remove keys of 'd'")
        assert client.call("FLUSHDB", "ASYNC").startswith(b"-NOPERM FLUSHDB")
        assert client.call("DBSIZE") == b":301\r\n"
        assert client.call("RANDOMKEY")[:1] == b"$"


def test_a_stop_breaks_a_compaction_off_and_loses_nothing(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [one]:
        with RawClient(one.port) as client:
            client.send(b"".join(encode_command(b"SET", b"k%d" % number, bytes(1_000)) for number in range(20_000)))
            assert {client.reply() for _ in range(20_000)} == {b"+OK\r\n"}
            assert [client.call("FLUSHALL"), client.call("SET", "after", "1")] == [b"+OK\r\n"] * 2
        assert one.stop() == 0
        one.start()
        with RawClient(one.port) as client:
            assert client.call("KEYS", "*") == b"*1\r\n$5\r\nafter\r\n"
        assert "Traceback" not in one.log


def test_garbage_outlives_no_crash(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [one]:
        with RawClient(one.port) as client:
            for number in range(20):
                assert client.call(*fill(b"z%d" % number)) == b":%d\r\n" % MEMBERS
            client.send(b"".join(encode_command(b"DEL", b"z%d" % number) for number in range(19)))
            assert client.reply() == b":1\r\n"
        one.kill()
        with shard_core(one.data_dir) as core:
            left = sum(reply != b":0\r\n" for reply in run(core, *([b"EXISTS", b"z%d" % number] for number in range(20))))
            assert elements(core) >= 2 * left * MEMBERS
            sweep(core)
            assert elements(core) == 2 * left * MEMBERS
            assert run(core, [b"ZCOUNT", b"z19", b"-inf", b"+inf"]) == [b":%d\r\n" % MEMBERS]
