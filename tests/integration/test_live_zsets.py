"""Big live sorted sets on a shard that is killed: members and ranks agree, and nothing acknowledged is lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rocksdict import Options, Rdict

from pipeline.format.keys import SCORE_BYTES, Kind, parse_key, parse_sortable_score
from pipeline.format.values import BigValue, Flag, decode_value, parse_element_score
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, running_shards

MEMBERS = 2_000
ROUNDS = 60


def test_a_big_set_survives_a_kill_whole(tmp_path: Path) -> None:
    chosen = random.Random(7)
    with running_shards(tmp_path) as [shard]:
        expected = _written(shard, chosen)
        shard.kill()
        stored = _stored(shard)
        assert stored == expected
        shard.start()
        with RawClient(shard.port) as client:
            assert client.call("ZCARD", "big") == b":%d\r\n" % len(expected)
            listed = client.call("ZRANGE", "big", 0, -1).split(b"\r\n")[2::2]
            assert listed == [member for member, _ in sorted(expected.items(), key=lambda pair: (pair[1], pair[0]))]
            assert client.call("ZADD", "big", 1, "after") == b":1\r\n"
            assert client.call("ZCARD", "big") == b":%d\r\n" % (len(expected) + 1)


def test_a_kill_in_the_middle_of_writes_leaves_a_set_that_agrees_with_itself(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [shard]:
        for seed in range(3):
            chosen = random.Random(seed)
            with RawClient(shard.port) as client:
                client.call("ZADD", "big", *(word for one in range(300) for word in (one, b"m%d" % one)))
                sent = [_change(chosen, 400) for _ in range(3_000)]
                client.send(b"".join(encode_command(*words) for words in sent))
                for _ in range(chosen.randrange(200, 2_000)):
                    client.reply()
                shard.kill()
            assert _stored(shard)
            shard.start()


def _written(shard: ShardProcess, chosen: random.Random) -> dict[bytes, float]:
    expected = {b"m%d" % one: float(chosen.randint(-50, 50)) for one in range(MEMBERS)}
    with RawClient(shard.port) as client:
        assert client.call("ZADD", "big", *(word for member, score in expected.items() for word in (repr(score), member))) == b":2000\r\n"
        for _ in range(ROUNDS):
            command, *words = _change(chosen, MEMBERS)
            client.call(command, *words)
            member = words[-1]
            if command == b"ZREM":
                expected.pop(member, None)
            elif command == b"ZINCRBY":
                expected[member] = expected.get(member, 0.0) + float(words[1])
            else:
                expected[member] = float(words[1])
        assert client.call("ZREMRANGEBYRANK", "big", 0, 9) == b":10\r\n"
        for member, _ in sorted(expected.items(), key=lambda pair: (pair[1], pair[0]))[:10]:
            del expected[member]
    return expected


def _change(chosen: random.Random, members: int) -> list[bytes]:
    member = b"m%d" % chosen.randrange(members)
    name = chosen.choice([b"ZADD", b"ZINCRBY", b"ZREM"])
    return [name, b"big", member] if name == b"ZREM" else [name, b"big", b"%d" % chosen.randint(-50, 50), member]


def _stored(shard: ShardProcess) -> dict[bytes, float]:
    """The one big set of a shard that does not run, checked against itself: as many as its meta value says, and each twice."""
    database = Rdict(str(shard.paths.live), options=Options(raw_mode=True))
    try:
        found: Any = database.items()  # its stub can't say that raw mode gives bytes
        entries = [(parse_key(key), value) for key, value in found if parse_key(key).kind is not Kind.LOCAL]
    finally:
        database.close()
    [meta] = [decode_value(value) for key, value in entries if key.kind is Kind.META and value[1] & Flag.BIG]
    assert isinstance(meta, BigValue)
    mine = [(key, value) for key, value in entries if key.version == meta.version]
    members = {key.detail: parse_element_score(value) for key, value in mine if key.kind is Kind.ZSET_MEMBER}
    ranks = {key.detail[SCORE_BYTES:]: parse_sortable_score(key.detail[:SCORE_BYTES]) for key, _ in mine if key.kind is Kind.ZSET_RANK}
    assert members == ranks
    assert len(members) == meta.count == sum(key.kind is Kind.ZSET_RANK for key, _ in mine)
    return members
