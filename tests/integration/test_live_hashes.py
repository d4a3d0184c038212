"""Big live hashes on a real shard: scanned and picked from while they change, written in one piece, killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from pipeline.format.keys import Kind, parse_key
from pipeline.format.values import BigValue, Flag, decode_value
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, running_shards

FIELDS = 6_000
LIMITED = 1 << 20  # of unread replies, for the shard of these tests


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardProcess]:
    with running_shards(tmp_path_factory.mktemp("h"), options={"output_hard_bytes": LIMITED}) as [one]:
        yield one


@pytest.fixture
def client(shard: ShardProcess) -> Iterator[RawClient]:
    with RawClient(shard.port) as one:
        one.call("FLUSHALL")
        yield one


def bulks(reply: bytes) -> list[bytes]:
    return reply.split(b"\r\n")[2::2]


def pairs_of(reply: bytes) -> dict[bytes, bytes]:
    parts = bulks(reply)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def fill(client: RawClient, key: str, value: bytes = b"0", fields: int = FIELDS) -> None:
    client.call("HSET", key, *(word for index in range(fields) for word in (b"f%d" % index, value)))


def test_many_fields_are_set_read_and_removed(client: RawClient) -> None:
    fields = [b"f%d" % index for index in range(FIELDS)]
    words = [word for field in fields for word in (field, b"v" + field)]
    assert client.call("HSET", "k", *words) == b":%d\r\n" % FIELDS
    assert client.call("HSET", "k", *words, "new", "1") == b":1\r\n"
    assert client.call("HLEN", "k") == b":%d\r\n" % (FIELDS + 1)
    assert bulks(client.call("HMGET", "k", *fields)) == [b"v" + field for field in fields]
    assert client.call("HMGET", "k", *(["none"] * 3_000)) == b"*3000\r\n" + b"$-1\r\n" * 3_000
    assert pairs_of(client.call("HGETALL", "k")) == dict(zip(words[::2], words[1::2], strict=True)) | {b"new": b"1"}
    assert client.call("HDEL", "k", *fields, *fields, "none") == b":%d\r\n" % FIELDS
    assert client.call("HGETALL", "k") == b"*2\r\n$3\r\nnew\r\n$1\r\n1\r\n"
    assert client.call("HDEL", "k", "new") == b":1\r\n"
    assert client.call("EXISTS", "k") == b":0\r\n"
    assert client.call("HSET", "k", "a", "1") == b":1\r\n"
    assert client.call("OBJECT", "ENCODING", "k") == b"$8\r\nlistpack\r\n"
    assert bulks(client.call("HMGET", "k", *(["a"] * 3_000))) == [b"1"] * 3_000
    assert client.call("HDEL", "k", *fields, "a") == b":1\r\n"
    assert client.call("EXISTS", "k") == b":0\r\n"


def test_the_same_in_a_transaction(client: RawClient) -> None:
    fields = [b"f%d" % index for index in range(FIELDS)]
    client.call("MULTI")
    fill(client, "k")
    fill(client, "k", b"1")
    client.call("HMGET", "k", *fields)
    client.call("HRANDFIELD", "k", FIELDS)
    client.call("HDEL", "k", *fields)
    replies = client.call("EXEC")
    assert replies.startswith(b"*5\r\n:%d\r\n:0\r\n*%d\r\n$1\r\n1\r\n" % (FIELDS, FIELDS))
    assert replies.endswith(b":%d\r\n" % FIELDS)
    assert client.call("EXISTS", "k") == b":0\r\n"


def test_many_fields_are_read_as_of_one_moment(shard: ShardProcess, client: RawClient) -> None:
    fill(client, "k")
    fields = [b"f%d" % index for index in range(FIELDS)]
    rounds = 20

    def write() -> None:
        with RawClient(shard.port) as other:
            for value in range(rounds):
                fill(other, "k", b"%d" % value)

    writer = threading.Thread(target=write)
    writer.start()
    seen = [set(bulks(client.call("HMGET", "k", *fields))) for _ in range(rounds)]
    writer.join()
    assert all(len(values) == 1 for values in seen)


def test_a_scan_returns_every_field_that_stays(client: RawClient) -> None:
    chosen = random.Random(5)
    fill(client, "k")
    staying = {b"f%d" % index for index in range(0, FIELDS, 2)}
    found: list[bytes] = []
    cursor = b"0"
    while True:
        reply = client.call("HSCAN", "k", cursor, "COUNT", 100)
        cursor, found = bulks(reply)[0], found + list(pairs_of(reply.split(b"\r\n", 3)[3]))
        if cursor == b"0":
            break
        for _ in range(20):
            client.call("HDEL", "k", b"f%d" % (chosen.randrange(FIELDS // 2) * 2 + 1))
            client.call("HSET", "k", b"g%d" % chosen.randrange(FIELDS), "1")
    assert staying <= set(found)
    assert len(found) == len(set(found))


def test_a_cursor_that_is_not_known_starts_at_the_beginning(client: RawClient) -> None:
    fill(client, "k")
    first = client.call("HSCAN", "k", 0, "COUNT", 10)
    assert client.call("HSCAN", "k", 12_345, "COUNT", 10) == first
    fill(client, "other")
    assert client.call("HSCAN", "other", bulks(first)[0], "COUNT", 10).split(b"\r\n")[3:] == first.split(b"\r\n")[3:]


@pytest.mark.parametrize("count", [1, 3, 100, FIELDS // 2])
def test_random_fields_of_a_big_hash(client: RawClient, count: int) -> None:
    fill(client, "k")
    everything = {b"f%d" % index for index in range(FIELDS)}
    for _ in range(3):  # the first one walks, the others may draw
        some = bulks(client.call("HRANDFIELD", "k", count))
        assert len(some) == len(set(some)) == count
        assert everything.issuperset(some)
        assert len(bulks(client.call("HRANDFIELD", "k", -count))) == count
        assert client.call("HRANDFIELD", "k").split(b"\r\n")[1] in everything
        assert pairs_of(client.call("HRANDFIELD", "k", count, "WITHVALUES")).keys() <= everything
    assert set(bulks(client.call("HRANDFIELD", "k", 2 * FIELDS))) == everything
    assert len(bulks(client.call("HRANDFIELD", "k", -2 * FIELDS))) == 2 * FIELDS
    repeated = client.call("HRANDFIELD", "k", -FIELDS, "WITHVALUES")
    assert repeated.startswith(b"*%d\r\n" % (2 * FIELDS))
    assert len(pairs_of(repeated)) < FIELDS  # some come twice


def test_a_reply_that_nobody_may_be_sent_is_refused(client: RawClient) -> None:
    client.call("HSET", "k", "a", "1", "b", "2")
    refusal = b"-ERR the reply would be longer than client-output-buffer-limit allows: ask for fewer at once\r\n"
    assert client.call("HRANDFIELD", "k", -(1 << 60)) == refusal
    client.call("HSET", "k", "b" * 60, "2")
    assert client.call("HRANDFIELD", "k", -LIMITED // 8) == refusal  # found out on the way
    assert client.call("HRANDFIELD", "k", -2).startswith(b"*2\r\n")


def test_too_long_a_field_of_a_big_hash_changes_nothing(client: RawClient) -> None:
    fill(client, "k")
    assert client.call("HSET", "k", "a", "1", "x" * 70_000, "2") == b"-ERR field is longer than this server stores\r\n"
    assert client.call("HSET", "new", "a", "1", "x" * 70_000, "2") == b"-ERR field is longer than this server stores\r\n"
    assert client.call("HEXISTS", "k", "a") == client.call("EXISTS", "new") == b":0\r\n"


def test_watched_hashes_notice_a_changed_value(shard: ShardProcess, client: RawClient) -> None:
    fill(client, "k")
    client.call("WATCH", "k")
    with RawClient(shard.port) as other:
        assert other.call("HSET", "k", "f1", "another") == b":0\r\n"
    client.call("MULTI")
    client.call("HLEN", "k")
    assert client.call("EXEC") == b"*-1\r\n"


def test_a_big_hash_survives_a_kill_whole(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [shard]:
        with RawClient(shard.port) as client:
            fill(client, "big")
            assert client.call("EXPIRE", "big", 5_000) == b":1\r\n"
            for index in range(0, 600, 3):
                client.call("HDEL", "big", b"f%d" % index)
                client.call("HINCRBY", "big", b"f%d" % (index + 1), index)
            expected = pairs_of(client.call("HGETALL", "big"))
            shard.kill()
        assert stored(shard) == expected
        shard.start()
        with RawClient(shard.port) as client:
            assert pairs_of(client.call("HGETALL", "big")) == expected
            assert client.call("HLEN", "big") == b":%d\r\n" % len(expected)
            assert client.call("HSET", "big", "after", "1") == b":1\r\n"
            assert int(client.call("TTL", "big")[1:]) > 0


def test_a_kill_in_the_middle_of_writes_leaves_a_hash_that_agrees_with_itself(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [shard]:
        for seed in range(3):
            chosen = random.Random(seed)
            with RawClient(shard.port) as client:
                fill(client, "big", fields=600)
                sent = []
                for _ in range(3_000):
                    field = b"f%d" % chosen.randrange(900)
                    sent.append(chosen.choice([[b"HDEL", b"big", field], [b"HSET", b"big", field, b"1", field + b"+", b"2"]]))
                client.send(b"".join(encode_command(*words) for words in sent))
                for _ in range(chosen.randrange(200, 2_000)):
                    client.reply()
                shard.kill()
            assert stored(shard)
            shard.start()


def stored(shard: ShardProcess) -> dict[bytes, bytes]:
    """The one big hash of a shard that does not run; as many fields as its meta value says."""
    database = Rdict(str(shard.paths.live), options=Options(raw_mode=True))
    try:
        found: Any = database.items()  # its stub can't say that raw mode gives bytes
        entries = [(parse_key(key), value) for key, value in found]
    finally:
        database.close()
    [meta] = [decode_value(value) for key, value in entries if key.kind is Kind.META and value[1] & Flag.BIG]
    assert isinstance(meta, BigValue)
    fields = {key.detail: value for key, value in entries if key.kind is Kind.HASH_FIELD and key.version == meta.version}
    assert len(fields) == meta.count
    return fields
