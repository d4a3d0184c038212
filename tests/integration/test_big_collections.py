"""Big collections: built by the job's own parts, ingested as a sidecar does, read by clients of a real shard.

The oracle is redis-server with the same elements, where Redis has an answer that does not depend on its encoding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from pipeline.format.layout import ShardPaths
from pipeline.spec import parse_spec
from pipeline.store import ObjectStore
from tests.support.builds import build
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient, encode_command
from tests.support.s3 import s3_store
from tests.support.shards import ShardProcess, running_shards
from tests.support.versions import publish_built

V1, V2 = "2026-11-22", "2026-11-23"
FIELDS, MEMBERS = 3_000, 12_000


def spec(kind: str) -> dict[str, object]:
    shape = {"hash": {"field": "${name}", "value": "value"}, "zset": {"member": "${name}", "score": "value"}}[kind]
    return {"dataset": kind, "source": {"table": "db.t"}, "key": f"{kind}:${{id}}", "type": kind, "mode": "replace", kind: shape}


def hash_rows(mark: int) -> list[tuple[str, str, int]]:
    return [("big", f"f{one}", one * mark) for one in range(FIELDS)] + [("small", "f1", mark)]


def zset_rows(mark: int) -> list[tuple[str, str, float]]:
    chosen = random.Random(mark)
    return [("big", f"m{one:05}", chosen.randint(-500, 500) / 4 * mark) for one in range(MEMBERS)] + [
        *(("flat", f"m{one:03}", 1.0) for one in range(700)),
        ("small", "m", 0.5),
    ]


def publish(store: ObjectStore, paths: ShardPaths, kind: str, version: str, rows: Sequence[tuple[str, str, float]]) -> None:
    columns = dict(zip(("id", "name", "value"), map(list, zip(*rows, strict=True)), strict=True))
    publish_built(store, paths, build(store, parse_spec(spec(kind), "a test's spec"), version, columns))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardProcess]:
    folder = tmp_path_factory.mktemp("shard")
    with s3_store() as s3, running_shards(folder / "shards") as [one]:
        for version, mark in ((V1, 1), (V2, 2)):
            publish(s3.store, one.paths, "hash", version, hash_rows(mark))
            publish(s3.store, one.paths, "zset", version, zset_rows(mark))
        yield one


@pytest.fixture
def client(shard: ShardProcess) -> Iterator[RawClient]:
    activate(shard, V1)
    with RawClient(shard.port) as one:
        yield one


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port, RawClient(port) as one:
        for key, field, value in hash_rows(1):
            one.call("HSET", f"hash:{key}", field, str(int(value)))
        for key, member, score in zset_rows(1):
            one.call("ZADD", f"zset:{key}", repr(score), member)
        yield one


def activate(shard: ShardProcess, version: str) -> None:
    with RawClient(shard.admin_socket) as admin:
        for kind in ("hash", "zset"):
            assert admin.call("REDKV", "REGISTER", kind, f"{kind}:") == b"+OK\r\n"
            assert admin.call("REDKV", "ACTIVATE", kind, version) == b"+OK\r\n"


SAME = [
    "HLEN hash:big",
    "HGET hash:big f2999",
    "HGET hash:big nope",
    "HMGET hash:big f0 nope f17 f0",
    "HGET hash:small f1",
    "ZCARD zset:big",
    "ZSCORE zset:big m00017",
    "ZSCORE zset:big nope",
    "TYPE zset:big",
    "ZRANGE zset:big 0 -1 WITHSCORES",
    "ZRANGE zset:big 0 9",
    "ZRANGE zset:big 0 9 REV WITHSCORES",
    "ZRANGE zset:big -5 -1",
    "ZRANGE zset:big 5000 5010 REV",
    "ZRANGE zset:big 11990 99999",
    "ZRANGE zset:big 20000 20001",
    "ZRANGE zset:big 10 5",
    "ZRANGE zset:big -3 2 BYSCORE WITHSCORES",
    "ZRANGE zset:big (-3 (2 BYSCORE",
    "ZRANGE zset:big 2 -3 BYSCORE REV WITHSCORES",
    "ZRANGE zset:big (2 (-3 BYSCORE REV LIMIT 3 7",
    "ZRANGE zset:big -inf +inf BYSCORE LIMIT 100 10",
    "ZRANGE zset:big +inf -inf BYSCORE REV LIMIT 11990 100",
    "ZRANGE zset:big -inf +inf BYSCORE LIMIT 1 -1",
    "ZRANGE zset:big -inf +inf BYSCORE LIMIT -1 5",
    "ZRANGE zset:big 5 4 BYSCORE",
    "ZRANGE zset:flat - + BYLEX LIMIT 600 200",
    "ZRANGE zset:flat [m010 (m013 BYLEX",
    "ZRANGE zset:flat (m010 [m013 BYLEX",
    "ZRANGE zset:flat [m013 (m010 BYLEX REV",
    "ZRANGE zset:flat + - BYLEX REV LIMIT 0 3",
    "ZRANGE zset:flat + - BYLEX",
    "ZRANGE zset:flat [m699 + BYLEX",
    "HSCAN hash:small 0",
    "ZSCAN zset:small 0 MATCH m COUNT 5",
    "ZSCAN zset:small 0 MATCH x*",
    "HSCAN nope 0",
    "HSCAN hash:big x",
    "HSCAN hash:big 0 COUNT 0",
    "HSCAN hash:big 0 COUNT x",
    "HSCAN hash:big 0 MATCH",
    "HSCAN zset:big 0",
    "ZSCAN hash:big 0",
]


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_big_collections_answer_as_redis_does(client: RawClient, oracle: RawClient, protocol: str) -> None:
    for one in (client, oracle):
        one.call("HELLO", protocol)
    for line in SAME:
        assert client.call(*line.split()) == oracle.call(*line.split()), line


def test_the_whole_hash_comes_and_pages_of_ranks_join_to_the_whole(client: RawClient, oracle: RawClient) -> None:
    whole = client.call("HGETALL", "hash:big")
    assert whole.startswith(b"*%d\r\n" % (2 * FIELDS))
    assert sorted(_pairs(whole)) == sorted(_pairs(oracle.call("HGETALL", "hash:big")))
    pages = [_bulks(client.call("ZRANGE", "zset:big", str(at), str(at + 999))) for at in range(0, MEMBERS, 1000)]
    assert [member for page in pages for member in page] == _bulks(oracle.call("ZRANGE", "zset:big", "0", "-1"))


@pytest.mark.parametrize(("command", "key", "elements"), [("HSCAN", "hash:big", FIELDS), ("ZSCAN", "zset:big", MEMBERS)])
def test_a_scan_meets_every_element_once(client: RawClient, oracle: RawClient, command: str, key: str, elements: int) -> None:
    oracle.call("HELLO", "2")  # in which scores are bulks, too
    found, cursor = [], b"0"
    while True:
        cursor, *page = _bulks(client.call(command, key, cursor, "COUNT", "700", "MATCH", "*[0-46-9]"))
        found += list(zip(page[::2], page[1::2], strict=True))
        if cursor == b"0":
            break
    names = [name for name, _ in found]
    assert len(set(names)) == len(names) == elements - elements // 10
    look = "HGET" if command == "HSCAN" else "ZSCORE"
    assert all(_bulks(oracle.call(look, key, name)) == [value] for name, value in found[:: len(found) // 20])


def test_a_cursor_of_another_version_is_refused(client: RawClient, shard: ShardProcess) -> None:
    cursor = _bulks(client.call("HSCAN", "hash:big", "0"))[0]
    activate(shard, V2)
    assert client.call("HSCAN", "hash:big", cursor).startswith(b"-ERR the cursor is of another version")


def test_an_answer_that_takes_many_turns_is_of_one_version(client: RawClient, shard: ShardProcess) -> None:
    """Asked for before the swap, and read while it happens: all of it is old, and the next one is new."""
    expected = [_bulks(_swapped(client, shard, version)) for version in (V1, V2)]
    for at in range(6):
        activate(shard, V1)
        client.send(encode_command("ZRANGE", "zset:big", "0", "-1", "WITHSCORES"))
        activate(shard, V2 if at % 2 else V1)
        assert _bulks(client.reply()) in expected
        assert _bulks(client.call("ZRANGE", "zset:big", "0", "-1", "WITHSCORES")) == expected[at % 2]


def _swapped(client: RawClient, shard: ShardProcess, version: str) -> bytes:
    activate(shard, version)
    return client.call("ZRANGE", "zset:big", "0", "-1", "WITHSCORES")


def _bulks(reply: bytes) -> list[bytes]:
    """All bulk strings of a reply whose bulks hold no line ends."""
    lines = reply.split(b"\r\n")
    return [lines[at + 1] for at, line in enumerate(lines) if line.startswith(b"$") and line != b"$-1"]


def _pairs(reply: bytes) -> list[tuple[bytes, bytes]]:
    bulks = _bulks(reply)
    return list(zip(bulks[::2], bulks[1::2], strict=True))
