"""The same commands to a real redis-server 7.0 and to a shard, over raw sockets, in RESP2 and RESP3: the same bytes come back.

What may differ is not asked: ids, ports, times, and CLIENT SETINFO, which Redis has from 7.2 on and today's clients send to everybody.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.format.values import encode_hash, encode_zset
from tests.support.oracle import both_clients, differing
from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, topology_of
from tests.support.versions import ALL_SLOTS, write_live

HASHES = {
    b"{t}hash": [(b"name", b"Ada"), (b"", b"empty field"), (b"n", b""), (b"$1\r\nn\r\n", b"looks like a bulk"), (b"bin", b"\x00\r\n\xff")],
    b"{t}wide": [(b"f%d" % index, b"v%d" % index) for index in range(1_500)],
}
ZSETS = {
    b"{t}zset": [
        (b"a", 1.0),
        (b"b", 1.0),
        (b"c", 2.5),
        (b"d", float("inf")),
        (b"e", float("-inf")),
        (b"f", 0.1),
        (b"g", 1e300),
        (b"h", -3.0),
    ],
    b"{t}lex": [(name, 0.0) for name in (b"", b"a", b"aa", b"b", b"bar", b"foo", b"foobar", b"zoo\xff")],
    b"{t}long": [(b"m%04d" % index, index / 3) for index in range(1_200)],
}

COMMANDS = """
PING
PING hello
PING a b
ping ""
ECHO x
ECHO
NOSUCH
NOSUCH a b c
"NO\\x00SUCH" "a\\x00b" c
SELECT 0
SELECT 1
SELECT x
SELECT 99999999999
SELECT
READONLY
READWRITE
READONLY x
GET
GET nokey
GET a b
SET {t}a
SET {t}a 1
GET {t}a
GET {t}hash
GET {t}zset
SET {t}a 2 NX
SET {t}a 2 XX
SET {t}n 1 XX
SET {t}a 3 GET
SET {t}n 4 GET
SET {t}n 4 NX GET
DEL {t}n
SET {t}n 5 NX GET
SET {t}hash x GET
SET {t}hash x NX
SET {t}a 1 NX XX
SET {t}a 1 XX NX
SET {t}a 1 EX
SET {t}a 1 EX x
SET {t}a 1 EX ""
SET {t}a 1 EX 0
SET {t}a 1 EX -5
SET {t}a 1 EX 9223372036854775807
SET {t}a 1 EX 9223372036854775
SET {t}a 1 PX 9223372036854775807
SET {t}a 1 PX 9223372036854775808
SET {t}a 1 EX 10 PX 10
SET {t}a 1 EX 10 KEEPTTL
SET {t}a 1 KEEPTTL EX 10
SET {t}a 1 EX 10 EX 1000
TTL {t}a
SET {t}a 1 KEEPTTL KEEPTTL
TTL {t}a
SET {t}a 1
TTL {t}a
PTTL {t}a
SET {t}a 1 exat 9999999999
GET {t}a
SET {t}a 1 PXAT 99999999999999 nx
SET {t}a 1 pxat 1
GET {t}a
EXISTS {t}a
TTL {t}a
TYPE {t}a
DEL {t}a
SET {t}a 1 EXAT 0
SET {t}a 1 BOGUS
SET {t}a 01 px 500000
SET {t}a 1 NX NX GET GET
SET {t}old x PXAT 1
SET {t}old y XX
SET {t}old y NX
GET {t}old
MGET
MGET {t}old {t}nokey {t}hash {t}zset {t}old
MGET a b
MGET {t}old
EXISTS {t}old {t}old {t}hash {t}nokey
EXISTS a b
EXISTS
TYPE {t}old
TYPE {t}hash
TYPE {t}zset
TYPE {t}nokey
TTL {t}nokey
TTL {t}hash
PTTL {t}nokey
TTL
DEL {t}old {t}old {t}nokey
DEL
DEL a b
SETNX {t}a 1
SETNX {t}a 2
SETNX {t}hash x
SETEX {t}a 0 x
SETEX {t}a x x
SETEX {t}a 9223372036854775807 x
SETEX {t}a 100 x
TTL {t}a
PSETEX {t}a -1 x
PSETEX {t}a 100000 12
PERSIST {t}a
PERSIST {t}a
PERSIST {t}nokey
TTL {t}a
GETSET {t}a 13
GETSET {t}hash 13
GETSET {t}n new
GETDEL {t}n
GETDEL {t}n
GETDEL {t}hash
GETEX {t}a
GETEX {t}a EX 100
TTL {t}a
GETEX {t}a PERSIST
TTL {t}a
GETEX {t}a PERSIST EX 10
GETEX {t}a EX 10 PERSIST
GETEX {t}a KEEPTTL
GETEX {t}a EX 0
GETEX {t}nokey EX 0
GETEX {t}hash EX 0
GETEX {t}a EXAT 1
GETEX {t}a
MSET {t}a 1 {t}n 2 {t}a 3
MGET {t}a {t}n
MSET {t}a
MSET {t}a 1 {t}n
MSET a 1 b 2
MSETNX {t}old 1 {t}a 2
MSETNX {t}old 1
GET {t}old
DEL {t}old
STRLEN {t}a
STRLEN {t}nokey
STRLEN {t}hash
SETEX {t}a 1000 ab
APPEND {t}a cd
APPEND {t}old ""
EXISTS {t}old
APPEND {t}hash x
TTL {t}a
GETRANGE {t}a 0 -1
GETRANGE {t}a 1 2
GETRANGE {t}a -3 -2
GETRANGE {t}a -1 -3
GETRANGE {t}a 3 1
GETRANGE {t}a -100 100
GETRANGE {t}a -100 -50
GETRANGE {t}a 9223372036854775807 -9223372036854775808
GETRANGE {t}nokey 0 1
GETRANGE {t}a x 1
SUBSTR {t}a 1 2
SETRANGE {t}a 6 xyz
GET {t}a
SETRANGE {t}a -1 x
SETRANGE {t}a x x
SETRANGE {t}nokey 5 ""
EXISTS {t}nokey
SETRANGE {t}a 0 ""
SETRANGE {t}a 1 Q
SETRANGE {t}a 536870911 xx
SETRANGE {t}hash 0 x
GET {t}a
DEL {t}a
INCR {t}a
INCR {t}a
DECR {t}a
INCRBY {t}a 10
INCRBY {t}a -100
DECRBY {t}a 5
DECRBY {t}a -9223372036854775808
INCRBY {t}a x
INCRBY {t}a 1.5
INCR {t}hash
SET {t}a 9223372036854775807
INCR {t}a
INCRBY {t}a 1
DECRBY {t}a 1
SET {t}a " 1"
INCR {t}a
SET {t}a ""
INCR {t}a
INCRBYFLOAT {t}a 1
SET {t}a 10.50
INCRBYFLOAT {t}a 0.1
INCRBYFLOAT {t}a -5
INCRBYFLOAT {t}a 5.0e3
INCRBYFLOAT {t}a 1e-18
INCRBYFLOAT {t}a 0x1p3
INCRBYFLOAT {t}a inf
INCRBYFLOAT {t}a nan
INCRBYFLOAT {t}a x
INCRBYFLOAT {t}a " 1"
INCRBYFLOAT {t}a 1e5000
INCRBYFLOAT {t}a 1e4932
INCRBYFLOAT {t}hash 1
SET {t}a 3.0e2
INCRBYFLOAT {t}a 200
SET {t}a 100 EX 1000
INCR {t}a
TTL {t}a
EXPIRE {t}a 100
TTL {t}a
EXPIRE {t}a 50 GT
EXPIRE {t}a 50 LT
EXPIRE {t}a 60 NX
EXPIRE {t}a 60 XX
EXPIRE {t}a 70 XX GT
EXPIRE {t}a 70 NX XX
EXPIRE {t}a 70 GT LT
EXPIRE {t}a 70 BOGUS
EXPIRE {t}a x BOGUS
EXPIRE {t}a x
EXPIRE {t}a 9223372036854775807
EXPIRE {t}a 9223372036854775
EXPIRE {t}a -9223372036854775
EXISTS {t}a
EXPIRE {t}nokey 10
SET {t}a 1
EXPIRE {t}a 10 GT
EXPIRE {t}a 10 LT
PEXPIRE {t}a 100000
PEXPIRE {t}a 9223372036854775807
EXPIREAT {t}a 9999999999
EXPIRETIME {t}a
PEXPIRETIME {t}a
PEXPIREAT {t}a 9999999999123
EXPIRETIME {t}a
PEXPIRETIME {t}a
EXPIRETIME {t}nokey
EXPIRETIME {t}hash
TOUCH {t}a {t}a {t}nokey
TOUCH
UNLINK {t}a {t}nokey
UNLINK
EXPIREAT {t}a 1
SET {t}a 1
EXPIREAT {t}a 1
GET {t}a
COMMAND INFO setnx setex psetex getset getdel getex mset msetnx append strlen getrange substr setrange
COMMAND INFO incr decr incrby decrby incrbyfloat expire pexpire expireat pexpireat expiretime pexpiretime persist touch unlink
HGETALL {t}hash
HGETALL {t}nokey
HGETALL {t}zset
HGETALL
HGETALL {t}hash x
HGETALL {t}wide
HGET {t}hash name
HGET {t}hash ""
HGET {t}hash n
HGET {t}hash nofield
HGET {t}hash "$1\\r\\nn\\r\\n"
HGET {t}hash Ada
HGET {t}nokey x
HGET {t}zset x
HGET {t}hash
HMGET {t}hash name nofield n "" name bin
HMGET {t}wide f0 f1499 f700 f1500 f1
HMGET {t}nokey a b
HMGET {t}zset a
HMGET {t}hash
HLEN {t}hash
HLEN {t}nokey
HLEN {t}zset
HLEN {t}wide
ZCARD {t}zset
ZCARD {t}nokey
ZCARD {t}hash
ZSCORE {t}zset a
ZSCORE {t}zset c
ZSCORE {t}zset d
ZSCORE {t}zset e
ZSCORE {t}zset f
ZSCORE {t}zset g
ZSCORE {t}zset nomember
ZSCORE {t}nokey a
ZSCORE {t}hash a
ZSCORE {t}long m0001
ZSCORE {t}zset
ZRANGE {t}zset 0 -1
ZRANGE {t}zset 0 -1 WITHSCORES
ZRANGE {t}zset 0 -1 REV
ZRANGE {t}zset 0 -1 REV withscores
ZRANGE {t}zset 1 2
ZRANGE {t}zset -3 -2 WITHSCORES
ZRANGE {t}zset -100 100
ZRANGE {t}zset 5 1
ZRANGE {t}zset 100 200
ZRANGE {t}zset -100 -50
ZRANGE {t}zset 1 2 REV
ZRANGE {t}zset x 1
ZRANGE {t}zset 0 1.5
ZRANGE {t}zset 0 01
ZRANGE {t}zset 0 9223372036854775807
ZRANGE {t}zset -9223372036854775808 9223372036854775807
ZRANGE {t}zset 0 9223372036854775808
ZRANGE {t}zset 0 1 BOGUS
ZRANGE {t}zset 0 1 REV REV
ZRANGE {t}zset 0 1 LIMIT 0 1
ZRANGE {t}zset 0 1 LIMIT 0 -1
ZRANGE {t}zset 0 1 LIMIT 0
ZRANGE {t}zset 0 1 LIMIT x 1
ZRANGE {t}zset 0 1 WITHSCORES WITHSCORES
ZRANGE {t}zset 0 1 BYSCORE BYLEX
ZRANGE {t}zset 0 1 BYSCORE
ZRANGE {t}zset (1 2.5 BYSCORE WITHSCORES
ZRANGE {t}zset -inf +inf BYSCORE
ZRANGE {t}zset -inf (inf BYSCORE
ZRANGE {t}zset +inf -inf BYSCORE REV WITHSCORES
ZRANGE {t}zset -inf +inf BYSCORE LIMIT 1 2
ZRANGE {t}zset -inf +inf BYSCORE LIMIT 1 -1
ZRANGE {t}zset -inf +inf BYSCORE LIMIT -1 2
ZRANGE {t}zset -inf +inf BYSCORE LIMIT 0 0
ZRANGE {t}zset -inf +inf BYSCORE LIMIT 100 2
ZRANGE {t}zset +inf -inf BYSCORE REV LIMIT 1 3
ZRANGE {t}zset 0x1 2e0 BYSCORE
ZRANGE {t}zset "" 1 BYSCORE
ZRANGE {t}zset " 1" 2 BYSCORE
ZRANGE {t}zset 1 "2 " BYSCORE
ZRANGE {t}zset nan 1 BYSCORE
ZRANGE {t}zset ( 1 BYSCORE
ZRANGE {t}zset infinity 1 BYSCORE
ZRANGE {t}zset 1_0 20 BYSCORE
ZRANGE {t}lex - + BYLEX
ZRANGE {t}lex [a (foo BYLEX
ZRANGE {t}lex (a [foo BYLEX
ZRANGE {t}lex + - BYLEX REV
ZRANGE {t}lex [foo [a BYLEX REV LIMIT 1 2
ZRANGE {t}lex - [ BYLEX
ZRANGE {t}lex a b BYLEX
ZRANGE {t}lex + - BYLEX
ZRANGE {t}lex (foo (foo BYLEX
ZRANGE {t}lex - + BYLEX WITHSCORES
ZRANGE {t}nokey 0 -1
ZRANGE {t}nokey 0 -1 WITHSCORES
ZRANGE {t}hash 0 -1
ZRANGE {t}hash x -1
ZRANGE {t}long 0 -1 WITHSCORES
ZRANGE {t}long 10 20 REV
ZRANGE {t}zset 0
CLUSTER
CLUSTER NOSUCH
CLUSTER KEYSLOT foo
CLUSTER KEYSLOT {a}b
CLUSTER KEYSLOT {}b
CLUSTER KEYSLOT
CLUSTER SLOTS x
COMMAND NOSUCH
COMMAND COUNT x
COMMAND INFO nosuch
COMMAND GETKEYS GET a
COMMAND GETKEYS MGET a b c
COMMAND GETKEYS PING x
COMMAND GETKEYS NOSUCH x
COMMAND GETKEYS SET a
COMMAND GETKEYS CLUSTER KEYSLOT a
COMMAND INFO get mget set del exists type ttl pttl hgetall hget hmget hlen zrange zscore zcard
COMMAND INFO ping echo hello auth select quit reset readonly readwrite info
COMMAND INFO cluster|slots cluster|nodes cluster|shards cluster|keyslot cluster|info cluster|myid
COMMAND INFO client|setname client|getname client|id client|list client|info client|no-evict command|count
CLIENT
CLIENT NOSUCH
CLIENT SETNAME
CLIENT GETNAME
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME "a b"
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT LIST TYPE nosuch
CLIENT LIST ID x
CLIENT LIST BOGUS
CLIENT LIST TYPE pubsub
CLIENT NO-EVICT on
CLIENT NO-EVICT maybe
HELLO x
HELLO 4
HELLO 2 BOGUS
HELLO 2 AUTH default
HELLO 2 AUTH nobody x
HELLO 2 SETNAME "a b"
AUTH x
AUTH default x
AUTH nobody x
AUTH a b c
""
"\\r\\n"
RESET x
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    root = tmp_path_factory.mktemp("o")
    with running_redis(root) as redis_port:
        with RawClient(redis_port) as client:
            for key, pairs in HASHES.items():
                client.call("HSET", key, *(part for pair in pairs for part in pair))
            client.call("CONFIG", "SET", "hash-max-listpack-entries", 10_000)
            for key, members in ZSETS.items():
                client.call("ZADD", key, *(part for member, score in members for part in (repr(score), member)))
        stored = {b"{t}hash": HASHES[b"{t}hash"]}
        with RawClient(redis_port) as client:  # a wide hash of Redis has an order of its own: store it in that order
            lines = client.call("HGETALL", "{t}wide").split(b"\r\n")[2::2]
            stored[b"{t}wide"] = list(zip(lines[::2], lines[1::2], strict=False))
        shard = ShardProcess("node-1-a", root / "s", free_port())
        shard.follow(topology_of([shard], [ALL_SLOTS]))
        rows = {key: encode_hash(pairs) for key, pairs in stored.items()}
        rows |= {key: encode_zset(members) for key, members in ZSETS.items()}
        write_live(shard.paths, rows)
        shard.start()
        try:
            yield redis_port, shard.port
        finally:
            shard.stop()


@pytest.mark.parametrize("protocol", [2, 3])
def test_listed_commands_get_the_same_bytes(servers: tuple[int, int], protocol: int) -> None:
    with both_clients(servers, protocol) as clients:
        found = differing(clients, clients, COMMANDS.splitlines())
        for client in clients:
            client.call("DEL", "{t}a", "{t}n", "{t}old")
    assert not found, "\n" + "\n".join(found)


BROKEN = [
    b"*1\r\n+PING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$01\r\nx\r\n",
    b"*x\r\n",
    b"*99999999999\r\n",
    b"*1\r\n$536870913\r\n",
    b"*2\r\n$4\r\nECHO\r\n:1\r\n",
    b'PING "x\r\n',
    b"PING 'x'y\r\n",
    b"PING\r\n*1\r\n!1\r\n",
    b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n*z\r\n",
    b"x" * 70_000,
    b"*" + b"1" * 70_000,
    b"*2147483648\r\n",
    b"*-9223372036854775809\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$4 \r\nPING\r\n",
    b"*1\r\n$9223372036854775808\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n\xff\r\n",
    b"*1\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\nx\r\n",
    b"*2\r\n$4\r\nECHO\r\n_\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n~1\r\n",
    b'PING "a"b\r\n',
    b"PING 'a\\'\r\n",
    b'PING "\\x4"x\n',
    b"*1\r\n$" + b"1" * 70_000,
    b"PING " + b"x" * 70_000,
]


@pytest.mark.parametrize("raw", BROKEN, ids=[repr(raw[:24]) for raw in BROKEN])
def test_protocol_errors_are_worded_alike_and_close(servers: tuple[int, int], raw: bytes) -> None:
    said = []
    for port in servers:
        with RawClient(port) as client:
            client.send(raw)
            replies = []
            try:
                while reply := client.reply():
                    replies.append(reply)
            except ConnectionResetError:
                pass  # what Redis did not read makes its kernel reset the connection
            said.append(replies)
    assert said[0] == said[1]


INLINE = [
    b"PING\r\n",
    b"PING\n",
    b"\r\n\r\nPING\r\n",
    b'ECHO "a\\x41\\n\\"b"\r\n',
    b"ECHO 'a\\'b\\n'\r\n",
    b"  ECHO \t x  \r\n",
    b'ECHO a"b c"\r\n',
    b"ECHO \x0bx\r\n",
    b"ECHO a\x0bx\r\n",
    b"*0\r\nPING\r\n",
    b"*-1\r\n*-9\r\nPING\r\n",
    b'ECHO ""\r\n',
]


@pytest.mark.parametrize("raw", INLINE)
def test_inline_commands_are_read_alike(servers: tuple[int, int], raw: bytes) -> None:
    said = []
    for port in servers:
        with RawClient(port) as client:
            client.send(raw)
            said.append(client.reply())
    assert said[0] == said[1]


KEYS = st.sampled_from([b"{t}a", b"{t}b", b"{t}hash", b"{t}zset", b"{t}lex", b"{t}nokey", b"other"])
VALUES = st.one_of(st.binary(max_size=20), st.sampled_from([b"0", b"-1", b"x\r\ny"]))
NUMBERS = st.one_of(
    st.integers(-12, 12).map(str),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["", "(1", "(", "-inf", "+inf", "1e2", "0x10", "-", "+", "[a", "(foo", "[", "9223372036854775808"]),
).map(str.encode)
DOUBLES = st.one_of(st.floats(-1e6, 1e6).map(repr), st.decimals(-1000, 1000, places=6).map(str), st.integers().map(str)).map(str.encode)
SET_OPTIONS = st.lists(
    st.one_of(
        st.sampled_from([(b"NX",), (b"xx",), (b"GET",), (b"KEEPTTL",), (b"EX", b"5000"), (b"pxat", b"1"), (b"EXAT", b"9999999999")]),
        st.tuples(st.sampled_from([b"EX", b"PX"]), st.sampled_from([b"0", b"-1", b"x", b"1.5", b"9223372036854775807"])),
    ),
    max_size=3,
).map(lambda groups: [word for group in groups for word in group])
RANGE_OPTIONS = st.lists(
    st.one_of(
        st.sampled_from([(b"REV",), (b"WITHSCORES",), (b"BYSCORE",), (b"BYLEX",), (b"LIMIT",)]),
        st.tuples(st.just(b"LIMIT"), st.integers(-2, 9).map(lambda n: b"%d" % n), st.integers(-2, 9).map(lambda n: b"%d" % n)),
    ),
    max_size=3,
).map(lambda groups: [word for group in groups for word in group])
DESTRUCTIBLE = st.sampled_from([b"{t}a", b"{t}b", b"{t}c"])
FIELDS = st.lists(st.sampled_from([b"name", b"", b"n", b"bin", b"nofield", b"f700"]), max_size=5)
RANDOM_COMMANDS = st.one_of(
    st.builds(lambda key, value, options: [b"SET", key, value, *options], DESTRUCTIBLE, VALUES, SET_OPTIONS),
    st.builds(lambda name, keys: [name, *keys], st.sampled_from([b"DEL", b"unlink", b"TOUCH"]), st.lists(DESTRUCTIBLE, max_size=3)),
    st.builds(
        lambda name, key: [name, key], st.sampled_from([b"INCR", b"DECR", b"STRLEN", b"GETDEL", b"PERSIST", b"EXPIRETIME"]), DESTRUCTIBLE
    ),
    st.builds(
        lambda name, key, word: [name, key, word],
        st.sampled_from([b"INCRBY", b"DECRBY", b"INCRBYFLOAT", b"APPEND", b"GETSET", b"SETNX", b"EXPIREAT", b"MSETNX"]),
        DESTRUCTIBLE,
        st.one_of(VALUES, NUMBERS, DOUBLES),
    ),
    st.builds(
        lambda name, pairs: [name, *pairs], st.sampled_from([b"MSET", b"MSETNX"]), st.lists(st.one_of(DESTRUCTIBLE, DOUBLES), max_size=5)
    ),
    st.builds(
        lambda name, key, one, other: [name, key, one, other],
        st.sampled_from([b"GETRANGE", b"SETRANGE", b"PSETEX", b"EXPIREAT"]),
        DESTRUCTIBLE,
        NUMBERS,
        st.one_of(VALUES, NUMBERS, st.sampled_from([b"NX", b"xx", b"GT", b"LT"])),
    ),
    st.builds(lambda name, keys: [name, *keys], st.sampled_from([b"MGET", b"EXISTS"]), st.lists(KEYS, max_size=4)),
    st.builds(lambda name, key: [name, key], st.sampled_from([b"GET", b"TYPE", b"HGETALL", b"HLEN", b"ZCARD"]), KEYS),
    st.builds(lambda name, key, fields: [name, key, *fields], st.sampled_from([b"HGET", b"HMGET", b"ZSCORE"]), KEYS, FIELDS),
    st.builds(lambda key, low, high, options: [b"ZRANGE", key, low, high, *options], KEYS, NUMBERS, NUMBERS, RANGE_OPTIONS),
    st.lists(VALUES, min_size=1, max_size=4),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(RANDOM_COMMANDS, min_size=1, max_size=40), protocol=st.sampled_from([2, 3]))
def test_random_commands_get_the_same_bytes(servers: tuple[int, int], commands: list[list[bytes]], protocol: int) -> None:
    cleaning = [[b"DEL", b"{t}a", b"{t}b", b"{t}c"]]
    raw = b"".join(encode_command(*words) for words in cleaning + commands)
    said = []
    for port in servers:
        with RawClient(port) as client:
            client.call("HELLO", protocol)
            client.send(raw)
            said.append([client.reply() for _ in range(len(commands) + 1)])
    assert said[0][1:] == said[1][1:]
