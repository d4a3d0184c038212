"""Sorted sets, compared with a real redis-server byte by byte: small ones, and big ones from small limits on.

What has no order or is by chance (ZSCAN of big sets, ZRANDMEMBER) is compared as a set. Ranges of names over big sets with differing scores
are not asked: what Redis answers then depends on the levels of its skip list.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.oracle import Ports, both_clients, both_servers, differences
from tests.support.resp import RawClient, encode_command

Words = list[bytes | str | int]

ENTRIES_MAX, VALUE_MAX = 8, 12  # so that few members cross them

LINES = """
ZADD
ZADD {t}z
ZADD {t}z 1
ZADD {t}z 1 a 2
ZADD {t}z NX
ZADD {t}z NX XX
ZADD {t}z NX XX 1 a
ZADD {t}z NX GT 1 a
ZADD {t}z nx lt 1 a
ZADD {t}z GT LT 1 a
ZADD {t}z NX XX GT LT x a
ZADD {t}z INCR 1 a 2 b
ZADD {t}z INCR NX XX 1 a 2 b
ZADD {t}z BOGUS 1 a
ZADD {t}z x a
ZADD {t}z 1 a x b
EXISTS {t}z
ZADD {t}z "" a
ZADD {t}z " 1" a
ZADD {t}z "1 " a
ZADD {t}z "1\\x00" a
ZADD {t}z nan a
ZADD {t}z -nan a
ZADD {t}z 1e400 a
ZADD {t}z 1e-400 a
ZADD {t}z 0e-400 a
ZADD {t}z 0x0p-9999 a
ZADD {t}z 0x1p-9999 a
ZADD {t}z 0x1p9999 a
ZADD {t}z 1_0 a
ZADD {t}z 1e a
ZADD {t}z +.5e1 half
ZADD {t}z 0x1F hex
ZADD {t}z infinity up
ZADD {t}z -INF down
ZADD {t}z 4.9e-324 tiny
ZADD {t}z XX 1 none
ZADD {t}z XX CH 1 none 2 half
ZADD {t}z XX INCR 1 none
ZADD {t}nokey XX INCR 1 none
ZADD {t}nokey XX 1 none
EXISTS {t}nokey
ZRANGE {t}z 0 -1 WITHSCORES
ZADD {t}z NX CH 9 half 3 new
ZADD {t}z NX INCR 9 half
ZADD {t}z NX INCR 9 newer
ZADD {t}z GT CH 1 half 4 new
ZADD {t}z LT CH 1 half 5 new
ZADD {t}z GT INCR -1 half
ZADD {t}z GT INCR 1 half
ZADD {t}z LT INCR 1 half
ZADD {t}z LT INCR 0 half
ZADD {t}z XX GT CH 100 half 100 none
ZADD {t}z CH 1 twice 2 twice 2 twice 3 twice
ZADD {t}z NX 7 a NX 8 b
ZADD {t}z INCR -inf up
ZADD {t}z INCR inf up
ZINCRBY {t}z -inf up
ZINCRBY {t}z x up
ZINCRBY {t}z nan up
ZINCRBY {t}z 1.5 half
ZINCRBY {t}z 0.1 fresh
ZINCRBY {t}z NX m
ZINCRBY {t}z NX XX
ZINCRBY {t}z 1
ZINCRBY {t}s 1 m
ZADD {t}s 1 m
ZADD {t}s x m
ZADD {t}s XX 1 m
ZRANGE {t}z 0 -1 WITHSCORES
ZCARD {t}z
DEL {t}z
ZADD {t}z -0 zero -0.0 zeroes
ZADD {t}z INCR -0 third
ZINCRBY {t}z -0 zero
ZRANGE {t}z 0 -1 WITHSCORES
ZADD {t}z 0 a 1 b 2 c 3 d 4 e -0 crossing -0 after 5 f
ZADD {t}z -0 big
ZINCRBY {t}z 0 big
ZADD {t}z CH 0 big
ZADD {t}z INCR -0 bigger
ZADD {t}z CH -0 b
ZRANGE {t}z 0 -1 WITHSCORES
ZRANGE {t}z -0 0 BYSCORE WITHSCORES
ZRANGE {t}z (-0 0 BYSCORE WITHSCORES
ZSCORE {t}z big
ZPOPMIN {t}z 3
DEL {t}z
ZADD {t}z 1e300 a -1e-5 b 123456789012345680 c 0.30000000000000004 d 1e17 e 1e16 f -17 g 4611686018427387904 h
ZRANGE {t}z 0 -1 WITHSCORES
ZSCAN {t}z 0
ZREM
ZREM {t}z
ZREM {t}nokey a
ZREM {t}s a
ZREM {t}z a a nope g
ZADD {t}z -4611686018427387904 i 4611686018427388928 j
ZREM {t}z a b c
ZADD {t}z -4611686018427387904 i 4611686018427388928 j
ZSCAN {t}z 0
ZREM {t}z b c d e f g h i j nope
EXISTS {t}z
ZADD {t}z 1 a 2 b 3 c
ZADD {t}z 1 longer-than-twelve
OBJECT ENCODING {t}z
ZREM {t}z longer-than-twelve
OBJECT ENCODING {t}z
ZREM {t}z b x a
ZREM {t}z c
EXISTS {t}z
ZADD {t}z 1 longer-than-twelve
OBJECT ENCODING {t}z
ZADD {t}z XX 5 longer-than-twelve
ZRANGE {t}z 0 -1 WITHSCORES
DEL {t}z
ZSCORE {t}nokey a
ZSCORE {t}s a
ZSCORE {t}z
ZMSCORE {t}z
ZMSCORE {t}nokey a b
ZMSCORE {t}s a
ZADD {t}z 1 a 2 b 3 c 4 d
ZADD {t}w 1 a 1 b 2 c 3 d 4 e 5 f 6 g 7 h
OBJECT ENCODING {t}w
ZADD {t}w 8 i 8 j 8 k
OBJECT ENCODING {t}w
ZMSCORE {t}z a nope d a
ZMSCORE {t}w a nope k a
ZSCORE {t}w k
ZRANK {t}nokey a
ZRANK {t}s a
ZRANK {t}z
ZRANK {t}z a WITHSCORE
ZRANK {t}z nope
ZRANK {t}z a
ZRANK {t}z d
ZREVRANK {t}z a
ZREVRANK {t}z nope
ZREVRANK {t}nokey nope
ZRANK {t}w a
ZRANK {t}w b
ZRANK {t}w k
ZREVRANK {t}w k
ZREVRANK {t}w nope
ZRANK {t}w nope
ZCOUNT {t}z
ZCOUNT {t}z x 1
ZCOUNT {t}s x 1
ZCOUNT {t}s 0 1
ZCOUNT {t}nokey 0 1
ZCOUNT {t}z -inf +inf
ZCOUNT {t}z (1 (3
ZCOUNT {t}z 3 1
ZCOUNT {t}w -inf +inf
ZCOUNT {t}w (1 8
ZCOUNT {t}w 1 (8
ZCOUNT {t}w (8 (8
ZCOUNT {t}w 9 1
ZCOUNT {t}w nan 1
ZLEXCOUNT {t}z a b
ZLEXCOUNT {t}z - +
ZLEXCOUNT {t}z [b (d
ZLEXCOUNT {t}nokey - +
ZLEXCOUNT {t}s - +
ZLEXCOUNT {t}z + -
ZRANGE {t}w 0 -1
ZRANGE {t}w 2 4 WITHSCORES
ZRANGE {t}w 2 4 REV WITHSCORES
ZRANGE {t}w 5 3
ZRANGE {t}w 0 9223372036854775807
ZRANGE {t}w -3 -1
ZRANGE {t}w 1 8 BYSCORE LIMIT 9223372036854775807 3
ZRANGE {t}w 1 8 BYSCORE LIMIT 1 9223372036854775807
ZRANGE {t}w 1 8 BYSCORE LIMIT 2 3 WITHSCORES
ZREVRANGE {t}w 0 2
ZREVRANGE {t}w 0 2 WITHSCORES
ZREVRANGE {t}z 1 -2 WITHSCORES
ZREVRANGE {t}z 0 1 REV
ZREVRANGE {t}z 0 1 BYSCORE
ZREVRANGE {t}z 0 1 LIMIT 0 1
ZREVRANGE {t}z 0 1 LIMIT 0 -1
ZREVRANGE {t}z x 1
ZREVRANGE {t}z 0
ZREVRANGE {t}s 0 1
ZREVRANGE {t}nokey 0 1
ZRANGEBYSCORE {t}z 1 3
ZRANGEBYSCORE {t}z (1 3 WITHSCORES LIMIT 0 1
ZRANGEBYSCORE {t}z 1 3 LIMIT 0
ZRANGEBYSCORE {t}z 1 3 LIMIT x 1
ZRANGEBYSCORE {t}z 1 3 LIMIT 0 x
ZRANGEBYSCORE {t}z 1 3 LIMIT 1 -1
ZRANGEBYSCORE {t}z 1 3 LIMIT -1 5
ZRANGEBYSCORE {t}z 1 3 REV
ZRANGEBYSCORE {t}z 1 3 BYSCORE
ZRANGEBYSCORE {t}z x 3
ZRANGEBYSCORE {t}z x 3 BOGUS
ZRANGEBYSCORE {t}s 1 3
ZRANGEBYSCORE {t}w (1 (8 LIMIT 2 2 WITHSCORES
ZRANGEBYSCORE {t}w -inf inf
ZREVRANGEBYSCORE {t}z 3 1
ZREVRANGEBYSCORE {t}z 3 (1 WITHSCORES
ZREVRANGEBYSCORE {t}z 1 3
ZREVRANGEBYSCORE {t}z +inf -inf LIMIT 1 2
ZREVRANGEBYSCORE {t}w +inf (1 LIMIT 1 20 WITHSCORES
ZREVRANGEBYSCORE {t}w 8 8
ZREVRANGEBYSCORE {t}nokey 8 8
ZRANGEBYLEX {t}z - +
ZRANGEBYLEX {t}z [b [c
ZRANGEBYLEX {t}z [b [c WITHSCORES
ZRANGEBYLEX {t}z - + LIMIT 1 2
ZRANGEBYLEX {t}z - "+\\x00x"
ZRANGEBYLEX {t}z - +x
ZRANGEBYLEX {t}z b c
ZRANGEBYLEX {t}z - + REV
ZRANGEBYLEX {t}s - +
ZRANGEBYLEX {t}nokey - +
ZREVRANGEBYLEX {t}z + -
ZREVRANGEBYLEX {t}z (c - LIMIT 0 1
ZREVRANGEBYLEX {t}z - +
ZADD {t}m 1 b 2 a 3 d 4 c 5 e
ZRANGEBYLEX {t}m - +
ZRANGEBYLEX {t}m [b [d
ZRANGEBYLEX {t}m [b [c
ZRANGEBYLEX {t}m [a [c
ZRANGEBYLEX {t}m [b [c LIMIT 1 5
ZRANGEBYLEX {t}m [b [c LIMIT 3 5
ZRANGEBYLEX {t}m (d +
ZREVRANGEBYLEX {t}m [d [b
ZREVRANGEBYLEX {t}m [d [b LIMIT 2 2
ZREVRANGEBYLEX {t}m (d -
ZRANGEBYLEX {t}m [x [z
ZLEXCOUNT {t}m [b [c
ZLEXCOUNT {t}m (b +
ZLEXCOUNT {t}m [a (b
ZREMRANGEBYLEX {t}m [b (d
ZRANGE {t}m 0 -1
ZREMRANGEBYLEX {t}m a +
ZREMRANGEBYLEX {t}s - +
ZREMRANGEBYLEX {t}nokey - +
ZREMRANGEBYLEX {t}m - +
EXISTS {t}m
ZADD {t}lex 0 a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 "" 0 aa 0 zoo
ZRANGEBYLEX {t}lex - +
ZRANGEBYLEX {t}lex [aa (d
ZRANGEBYLEX {t}lex [ [
ZRANGEBYLEX {t}lex ( (b
ZREVRANGEBYLEX {t}lex + [c LIMIT 2 3
ZRANGE {t}lex (zoo (g REV BYLEX LIMIT 0 2
ZLEXCOUNT {t}lex - +
ZLEXCOUNT {t}lex (a [c
ZLEXCOUNT {t}lex [c (a
ZREMRANGEBYLEX {t}lex (f [zoo
ZREMRANGEBYLEX {t}lex [x +
ZRANGE {t}lex 0 -1 WITHSCORES
ZREMRANGEBYLEX {t}lex - +
EXISTS {t}lex
ZREMRANGEBYRANK {t}z x 1
ZREMRANGEBYRANK {t}z 0
ZREMRANGEBYRANK {t}s 0 1
ZREMRANGEBYRANK {t}s x 1
ZREMRANGEBYRANK {t}nokey 0 1
ZREMRANGEBYRANK {t}z 5 9
ZREMRANGEBYRANK {t}z 2 1
ZREMRANGEBYRANK {t}z 1 -2
ZRANGE {t}z 0 -1
ZREMRANGEBYRANK {t}z -100 100
EXISTS {t}z
ZREMRANGEBYRANK {t}w 3 4
ZREMRANGEBYRANK {t}w -1 -1
ZREMRANGEBYRANK {t}w 100 200
ZREMRANGEBYSCORE {t}w x 1
ZREMRANGEBYSCORE {t}w (1 2
ZREMRANGEBYSCORE {t}w 100 200
ZREMRANGEBYSCORE {t}s 1 2
ZREMRANGEBYSCORE {t}nokey 1 2
ZRANGE {t}w 0 -1 WITHSCORES
ZCARD {t}w
ZREMRANGEBYSCORE {t}w -inf inf
EXISTS {t}w
ZADD {t}w 1 a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8 i 8 j 8 k
ZADD {t}z 1 a 2 b 3 c 4 d
ZPOPMIN
ZPOPMIN {t}z x
ZPOPMIN {t}z -1
ZPOPMIN {t}z 1 2
ZPOPMIN {t}z 0
ZPOPMIN {t}s 0
ZPOPMIN {t}s
ZPOPMIN {t}nokey
ZPOPMIN {t}nokey 0
ZPOPMIN {t}nokey 3
ZPOPMIN {t}z
ZPOPMAX {t}z
ZPOPMAX {t}z 1
ZPOPMAX {t}z 9223372036854775807
ZPOPMAX {t}z 9223372036854775808
EXISTS {t}z
ZPOPMIN {t}w
ZPOPMIN {t}w 2
ZPOPMAX {t}w 2
ZPOPMAX {t}w
ZPOPMAX {t}w 9223372036854775807
EXISTS {t}w
ZRANDMEMBER {t}nokey
ZRANDMEMBER {t}nokey 0
ZRANDMEMBER {t}nokey 3
ZRANDMEMBER {t}s
ZRANDMEMBER {t}s 0
ZADD {t}z 1 a
ZADD {t}y 1 a 2 b 3 c
ZRANDMEMBER {t}z
ZRANDMEMBER {t}z 0
ZRANDMEMBER {t}z 1
ZRANDMEMBER {t}z -3
ZRANDMEMBER {t}z -3 WITHSCORES
ZRANDMEMBER {t}z x
ZRANDMEMBER {t}z x y
ZRANDMEMBER {t}z 1 BOGUS
ZRANDMEMBER {t}z 1 WITHSCORES x
ZRANDMEMBER {t}z 1 withscores
ZRANDMEMBER {t}z -9223372036854775808
ZRANDMEMBER {t}z 9223372036854775807
ZRANDMEMBER {t}z 9223372036854775807 WITHSCORES
ZRANDMEMBER {t}z -9223372036854775807 WITHSCORES
ZRANDMEMBER {t}y 3
ZRANDMEMBER {t}y 5 WITHSCORES
ZADD {t}w 1 a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8 i 8 j 8 k
ZRANDMEMBER {t}w 11
ZRANDMEMBER {t}w 12 WITHSCORES
ZSCAN {t}z
ZSCAN {t}z x
ZSCAN {t}s 0
ZSCAN {t}nokey 0
ZSCAN {t}nokey 5
ZSCAN {t}y 0 MATCH [ab] COUNT 1
ZSCAN {t}y 0 COUNT 0
ZSCAN {t}y 77
ZSCAN {t}y 0 BOGUS
ZSCAN {t}nokey 0 BOGUS
ZSCAN {t}nokey x BOGUS
ZSCAN {t}s 0 BOGUS
ZSCAN {t}s x BOGUS
EXPIRE {t}w 1000
ZADD {t}w 9 z
TTL {t}w
EXPIRE {t}y 1000
ZADD {t}y 9 z
ZREM {t}y a
ZPOPMIN {t}y
TTL {t}y
ZADD {t}y 1 longer-than-twelve
TTL {t}y
ZADD {t}y 1 q
TTL {t}y
TYPE {t}w
MULTI
ZADD {t}v 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h 9 i
ZRANGE {t}v 0 -1
ZREMRANGEBYSCORE {t}v 2 8
ZRANK {t}v i
ZCOUNT {t}v 0 9
ZPOPMAX {t}v
ZINCRBY {t}v 1 a
EXEC
ZUNIONSTORE {t}v 1 {t}w
ZRANGESTORE {t}v {t}w 0 -1
COMMAND INFO zadd zincrby zrem zscore zmscore zcard zcount zlexcount zrank zrevrank zrange zrevrange zrangebyscore zrevrangebyscore
COMMAND INFO zrangebylex zrevrangebylex zremrangebyrank zremrangebyscore zremrangebylex zpopmin zpopmax zrandmember zscan
""".splitlines()
LATER = ("ZUNIONSTORE", "ZRANGESTORE")


@pytest.fixture(scope="module")
def servers() -> Iterator[Ports]:
    options = {"zset_max_listpack_entries": ENTRIES_MAX, "zset_max_listpack_value": VALUE_MAX}
    with TemporaryDirectory(prefix="redkv-") as folder, both_servers(Path(folder), options) as ports:
        with RawClient(ports[0]) as redis:
            for name, value in options.items():
                assert redis.call("CONFIG", "SET", name.replace("_", "-"), value) == b"+OK\r\n"
        yield ports


@pytest.mark.parametrize("protocol", [2, 3])
def test_listed_commands_get_the_same_bytes(servers: Ports, protocol: int) -> None:
    lines = (line for line in LINES if not line.startswith(LATER))
    asked = ["SET {t}s x", *lines, "DEL {t}s {t}v {t}w {t}y {t}z"]
    found = differences(servers, protocol, asked)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(LATER)])
def test_what_comes_later_is_an_unknown_command(servers: Ports, line: str) -> None:
    with RawClient(servers[1]) as shard:
        assert shard.call(*line.split()).startswith(b"-ERR unknown command")


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("size", [ENTRIES_MAX, 40])
def test_members_by_chance_are_members(servers: Ports, protocol: int, size: int) -> None:
    scores = {b"m%d" % one: b"%d" % (one // 2) for one in range(size)}
    with both_clients(servers, protocol) as clients:
        for client in clients:
            client.call("ZADD", "chance", *(word for member, score in scores.items() for word in (score, member)))
            for number, distinct in ((5, 5), (-100, 0), (size - 1, size - 1)):
                lines = _lines(client.call("ZRANDMEMBER", "chance", number, "WITHSCORES"), protocol)
                picked = list(zip(lines[::2], lines[1::2], strict=True))
                assert len(picked) == abs(number)
                assert len(set(picked)) == distinct or number < 0
                assert all(scores[member] == score for member, score in picked)
            assert _lines(client.call("ZRANDMEMBER", "chance"), protocol)[0] in scores
            seen = set(_lines(client.call("ZRANDMEMBER", "chance", -60 * size), protocol))
            assert seen == set(scores)
            client.call("DEL", "chance")


@pytest.mark.parametrize("seed", [1, 2])
def test_places_in_a_large_set_are_found_while_it_changes(servers: Ports, seed: int) -> None:
    """Long enough for checkpoints; reads between writes, at both ends and in the middle."""
    chosen = random.Random(seed)
    members = 6_000
    commands: list[Words] = [["ZADD", "large", *(word for one in range(members) for word in (one % 1_500, f"m{one}"))]]
    for _ in range(500):
        at = chosen.randrange(-members, members)
        member, score = f"m{chosen.randrange(members)}", chosen.randrange(-50, 1_600)
        writes: list[Words] = [
            ["ZADD", "large", score, member],
            ["ZREM", "large", member],
            ["ZPOPMIN", "large", chosen.randrange(4)],
            ["ZPOPMAX", "large", chosen.randrange(4)],
            ["ZREMRANGEBYRANK", "large", at, at + 2],
            ["ZREMRANGEBYSCORE", "large", "-inf", chosen.randrange(-50, 5)],
        ]
        commands += chosen.sample(writes, chosen.randrange(3))
        commands += [
            ["ZRANK", "large", member],
            ["ZREVRANK", "large", f"m{chosen.randrange(members)}"],
            ["ZRANGE", "large", at, at + 3],
            ["ZRANGE", "large", 0, 2, "WITHSCORES"],
            ["ZREVRANGE", "large", 0, 2],
            ["ZCOUNT", "large", "-inf", score],
        ]
    commands += [["ZRANGE", "large", 0, -1], ["DEL", "large"]]
    raw = b"".join(encode_command(*words) for words in commands)
    said = []
    with both_clients(servers, 2) as clients:
        for client in clients:
            client.send(raw)
            said.append([client.reply() for _ in commands])
    for words, expected, got in zip(commands, said[0], said[1], strict=True):
        assert got == expected, words[:6]


def test_a_scan_of_a_big_set_misses_nothing_that_stays(servers: Ports) -> None:
    """Scores change, members come and go while it runs."""
    stays = {b"stays%03d" % one for one in range(300)}
    with both_clients(servers, 2) as (_, shard):
        shard.call("ZADD", "scanned", *(word for member in sorted(stays) for word in ("1", member)))
        found: list[bytes] = []
        cursor, step = b"0", 0
        while True:
            cursor, *page = _lines(shard.call("ZSCAN", "scanned", cursor, "COUNT", 7), 2)
            found += page[::2]
            step += 1
            shard.call("ZADD", "scanned", step, b"stays%03d" % (299 - step), -step, b"comes%d" % step)
            shard.call("ZREM", "scanned", b"comes%d" % (step - 3))
            if cursor == b"0":
                break
        assert len(found) == len(set(found))
        assert stays <= set(found)
        again = _lines(shard.call("ZSCAN", "scanned", 1 << 62, "COUNT", 5), 2)  # never given out: from the beginning
        assert len(again) == 11
        shard.call("DEL", "scanned")


def _lines(reply: bytes, protocol: int) -> list[bytes]:
    """All strings and doubles of a reply."""
    lines = reply.split(b"\r\n")
    found = [lines[at + 1] if line[:1] == b"$" else line[1:] for at, line in enumerate(lines) if line[:1] in (b"$", b",") and line]
    assert protocol == 3 or b"," not in {line[:1] for line in lines}
    return found


KEYS = st.sampled_from([b"{t}a", b"{t}b", b"{t}s"])
MEMBERS = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"c", b"d", b"\x00", b"a\x00", b"$1\r\na\r\n", b"longer-than-twelve"]), st.binary(max_size=3)
)
SCORES = st.one_of(
    st.integers(-3, 3).map(str),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["-0", "inf", "-inf", "1e400", "", "0x10", "1e-320", "0.1"]),
).map(str.encode)
BOUNDS = st.one_of(SCORES, SCORES.map(lambda score: b"(" + score))
NAMES = st.one_of(st.sampled_from([b"-", b"+", b"a"]), MEMBERS.map(lambda name: b"[" + name), MEMBERS.map(lambda name: b"(" + name))
NUMBERS = st.integers(-12, 12).map(lambda number: b"%d" % number)
FLAGS = st.lists(st.sampled_from([b"NX", b"xx", b"GT", b"lt", b"CH", b"INCR"]), max_size=2)
NOTHING: list[bytes] = []
LIMITS = st.one_of(st.just(NOTHING), st.tuples(NUMBERS, NUMBERS).map(lambda pair: [b"LIMIT", *pair]))
WITH_SCORES = st.sampled_from([[], [b"WITHSCORES"]])


def flat(pairs: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [word for pair in pairs for word in pair]


ADDS = st.builds(
    lambda key, flags, pairs: [b"ZADD", key, *flags, *flat(pairs)],
    KEYS,
    st.one_of(st.just(NOTHING), FLAGS),
    st.lists(st.tuples(SCORES, MEMBERS), min_size=1, max_size=7),
)
PLAIN_ADDS = st.builds(
    lambda key, pairs: [b"ZADD", key, *flat(pairs)],
    KEYS,
    st.lists(st.tuples(st.integers(-3, 3).map(lambda one: b"%d" % one), MEMBERS), min_size=3, max_size=9),
)
COMMANDS = st.one_of(
    ADDS,
    PLAIN_ADDS,
    st.builds(lambda key, score, member: [b"ZINCRBY", key, score, member], KEYS, SCORES, MEMBERS),
    st.builds(
        lambda name, key, members: [name, key, *members], st.sampled_from([b"ZREM", b"ZMSCORE"]), KEYS, st.lists(MEMBERS, max_size=4)
    ),
    st.builds(lambda name, key, member: [name, key, member], st.sampled_from([b"ZSCORE", b"ZRANK", b"ZREVRANK"]), KEYS, MEMBERS),
    st.builds(lambda name, key, low, high: [name, key, low, high], st.sampled_from([b"ZCOUNT", b"ZREMRANGEBYSCORE"]), KEYS, BOUNDS, BOUNDS),
    st.builds(lambda key, low, high: [b"ZREMRANGEBYRANK", key, low, high], KEYS, NUMBERS, NUMBERS),
    st.builds(lambda name, key, words: [name, key, *words], st.sampled_from([b"ZRANGE", b"ZREVRANGE"]), KEYS, st.tuples(NUMBERS, NUMBERS)),
    st.builds(
        lambda name, key, low, high, limit, scores: [name, key, low, high, *limit, *scores],
        st.sampled_from([b"ZRANGEBYSCORE", b"ZREVRANGEBYSCORE"]),
        KEYS,
        BOUNDS,
        BOUNDS,
        LIMITS,
        WITH_SCORES,
    ),
    st.builds(lambda name, key: [name, key], st.sampled_from([b"ZPOPMIN", b"ZPOPMAX", b"ZCARD"]), KEYS),
    st.builds(lambda name, key, number: [name, key, number], st.sampled_from([b"ZPOPMIN", b"ZPOPMAX"]), KEYS, NUMBERS),
    st.builds(lambda key, scores: [b"ZRANDMEMBER", key, b"1000", *scores], KEYS, WITH_SCORES),
)
LEX_COMMANDS = st.one_of(
    st.builds(lambda members: [b"ZADD", b"{t}l", *flat([(b"0", member) for member in members])], st.lists(MEMBERS, min_size=1, max_size=6)),
    st.builds(
        lambda name, low, high: [name, b"{t}l", low, high], st.sampled_from([b"ZLEXCOUNT", b"ZLEXCOUNT", b"ZREMRANGEBYLEX"]), NAMES, NAMES
    ),
    st.builds(
        lambda name, low, high, limit: [name, b"{t}l", low, high, *limit],
        st.sampled_from([b"ZRANGEBYLEX", b"ZREVRANGEBYLEX"]),
        NAMES,
        NAMES,
        LIMITS,
    ),
)
FEW = st.lists(st.tuples(st.integers(0, 3).map(lambda one: b"%d" % one), MEMBERS.filter(lambda name: len(name) < VALUE_MAX)), max_size=7)
MIXED_COMMANDS = st.builds(
    lambda pairs, name, low, high, limit: [
        [b"DEL", b"{t}m"],
        [b"ZADD", b"{t}m", b"1", b"m", *flat(pairs)],
        [name, b"{t}m", low, high, *(limit if b"RANGEBY" in name and b"REM" not in name else [])],
        [b"ZRANGE", b"{t}m", b"0", b"-1"],
    ],
    FEW,
    st.sampled_from([b"ZRANGEBYLEX", b"ZREVRANGEBYLEX", b"ZLEXCOUNT", b"ZREMRANGEBYLEX"]),
    NAMES,
    NAMES,
    LIMITS,
)
RANDOM = st.lists(st.one_of(COMMANDS.map(lambda one: [one]), LEX_COMMANDS.map(lambda one: [one]), MIXED_COMMANDS), min_size=1, max_size=30)
CHECKS = [
    words
    for key in (b"{t}a", b"{t}b", b"{t}l")
    for words in ([b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], [b"OBJECT", b"ENCODING", key], [b"TYPE", key])
]
CLEANING = [[b"DEL", b"{t}a", b"{t}b", b"{t}l", b"{t}m"], [b"SET", b"{t}s", b"x"]]


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(groups=RANDOM, protocol=st.sampled_from([2, 3]))
def test_random_commands_get_the_same_bytes(servers: Ports, groups: list[list[list[bytes]]], protocol: int) -> None:
    commands = [*CLEANING, *(command for group in groups for command in group), *CHECKS]
    raw = b"".join(encode_command(*words) for words in commands)
    said = []
    with both_clients(servers, protocol) as clients:
        for client in clients:
            client.send(raw)
            said.append([client.reply() for _ in commands])
    assert [(words, reply) for words, reply in zip(commands, said[1], strict=True)] == list(zip(commands, said[0], strict=True))
