"""Generic keys, compared with a real redis-server byte by byte. What has no order comes sorted; what depends on chance is not asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.oracle import Ports, both_clients, both_servers, differences
from tests.support.resp import RawClient, encode_command

LINES = """
FLUSHALL
DBSIZE
RANDOMKEY
KEYS *
SCAN 0
SET {t}a 1 EX 1000
RENAME {t}a {t}b
GET {t}a
GET {t}b
TTL {t}b
RENAME {t}b {t}b
RENAMENX {t}b {t}b
RENAME {t}none {t}none
RENAMENX {t}none {t}none
RENAME {t}none {t}b
RENAMENX {t}none {t}b
SET {t}c 2
RENAMENX {t}b {t}c
RENAME {t}b {t}c
TTL {t}c
RENAMENX {t}c {t}d
GET {t}d
SET {t}gone x PXAT 1
SET {t}e 1
RENAME {t}gone {t}e
RENAMENX {t}e {t}gone
TTL {t}gone
RENAME {t}gone {t}""
RENAME
RENAME a
RENAME a b
RENAME a b c
RENAMENX a b
COMMAND GETKEYS RENAME a b
COMMAND GETKEYS OBJECT ENCODING a
COMMAND GETKEYS MEMORY USAGE a SAMPLES 1
FLUSHALL
SET {t}s word
SCAN 0
SCAN 0 COUNT 100
SCAN 0 COUNT 100 MATCH *s
SCAN 0 MATCH *x COUNT 100
SCAN 0 MATCH *x MATCH * COUNT 100
SCAN 0 TYPE string COUNT 100
SCAN 0 COUNT 100 TYPE STRING
SCAN 0 COUNT 100 TYPE hash
SCAN 0 COUNT 100 TYPE list
SCAN 0 COUNT 100 TYPE nosuch
SCAN 0 COUNT 9223372036854775807
SCAN 0 COUNT 9223372036854775808
SCAN 0 COUNT 0
SCAN 0 COUNT -1
SCAN 0 COUNT x
SCAN 0 COUNT
SCAN 0 MATCH
SCAN 0 TYPE
SCAN 0 BOGUS 1
SCAN 0 COUNT 0 BOGUS
SCAN 0 BOGUS COUNT x
SCAN
SCAN x
SCAN ""
SCAN " 0"
SCAN "0 "
SCAN 0x0
SCAN +0
SCAN -0
SCAN "0\\x00x"
SCAN 18446744073709551616
SCAN -18446744073709551616
SCAN x COUNT 0
HSCAN {t}none x
HSCAN {t}none "" COUNT 1
KEYS *
KEYS {t}s
KEYS *x
KEYS
KEYS a b
DBSIZE
DBSIZE x
RANDOMKEY
RANDOMKEY x
SET {t}gone x PXAT 1
KEYS *
SCAN 0 COUNT 100
RANDOMKEY
OBJECT
OBJECT NOSUCH
OBJECT NOSUCH {t}s
OBJECT HELP
OBJECT HELP x
OBJECT ENCODING
OBJECT ENCODING {t}none
OBJECT ENCODING {t}s
OBJECT ENCODING {t}s x
OBJECT encoding {t}gone
OBJECT REFCOUNT {t}s
OBJECT REFCOUNT {t}none
OBJECT IDLETIME {t}none
OBJECT FREQ {t}none
OBJECT FREQ {t}s
SET {t}s 12
OBJECT ENCODING {t}s
SET {t}s 012
OBJECT ENCODING {t}s
SET {t}s -9223372036854775808
OBJECT ENCODING {t}s
SET {t}s 9223372036854775808
OBJECT ENCODING {t}s
SET {t}s ""
OBJECT ENCODING {t}s
SET {t}s 12345678901234567890123456789012345678901234
OBJECT ENCODING {t}s
SET {t}s 123456789012345678901234567890123456789012345
OBJECT ENCODING {t}s
MEMORY
MEMORY USAGE
MEMORY USAGE {t}none
MEMORY USAGE {t}none SAMPLES
MEMORY USAGE {t}none SAMPLES x
MEMORY USAGE {t}none SAMPLES -1
MEMORY USAGE {t}none SAMPLES 0
MEMORY USAGE {t}none SAMPLES 1 SAMPLES 2
MEMORY USAGE {t}none BOGUS
MEMORY USAGE {t}none BOGUS 1
MEMORY USAGE {t}none SAMPLES 1 BOGUS
FLUSHALL x
FLUSHALL ASYNC SYNC
FLUSHALL ASYNC x
FLUSHDB x
GET {t}s
FLUSHALL async
GET {t}s
SET {t}s 1
FLUSHDB SYNC
GET {t}s
DBSIZE
SET {t}s 1
FLUSHDB
EXISTS {t}s
SET {t}s 1
WATCH {t}s
2> FLUSHALL
MULTI
SET {t}s 2
EXEC
SET {t}s 1
MULTI
SET {t}a 1
FLUSHALL
GET {t}a
GET {t}s
SET {t}b 2
KEYS *
DBSIZE
RENAME {t}b {t}c
SCAN 0 COUNT 100
EXEC
GET {t}a
GET {t}c
KEYS *
EXPIRE {t}c 100
EXPIRE {t}c 100 NX
EXPIRE {t}c x
EXPIRE {t}c 100 BOGUS
EXPIRE {t}c 10 GT
EXPIRE {t}c 10 LT
EXPIRE {t}c -1
EXISTS {t}c
EXPIRE {t}none 10
TTL {t}none
EXPIRETIME {t}none
TOUCH {t}c {t}none
UNLINK {t}c {t}none
TYPE {t}none
"""

DESCRIBED = """
COMMAND INFO rename renamenx scan keys randomkey dbsize object flushdb flushall touch unlink del exists type
COMMAND INFO memory|usage memory|help object|freq object|help
COMMAND INFO expire pexpire expireat pexpireat ttl pttl expiretime pexpiretime persist
"""


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with TemporaryDirectory(prefix="k") as folder, both_servers(Path(folder)) as both:
        yield both


@pytest.mark.parametrize("protocol", [2, 3])
def test_listed_commands_get_the_same_bytes(ports: Ports, protocol: int) -> None:
    found = differences(ports, protocol, LINES.splitlines())
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_commands_describe_themselves_as_redis_does(ports: Ports, protocol: int) -> None:
    for line in filter(None, DESCRIBED.splitlines()):
        with both_clients(ports, protocol) as (redis, shard):
            for name in line.split()[2:]:
                expected, got = (client.call("COMMAND", "INFO", name) for client in (redis, shard))
                assert canonical(expected) == canonical(got), name


def canonical(reply: bytes) -> list[bytes]:
    """Subcommands and tips have no order."""
    return sorted(reply.split(b"\r\n"))


KEYS = st.sampled_from([b"{t}a", b"{t}b", b"{t}c", b"{t}d"])
COMMANDS = st.one_of(
    st.builds(lambda name, old, new: [name, old, new], st.sampled_from([b"RENAME", b"RENAMENX"]), KEYS, KEYS),
    st.builds(lambda key, value: [b"SET", key, value], KEYS, st.sampled_from([b"1", b"x" * 44, b"x" * 45, b""])),
    st.builds(lambda key, field: [b"HSET", key, field, b"v"], KEYS, st.sampled_from([b"f", b"g" * 65])),
    st.builds(lambda key, member: [b"ZADD", key, b"1", member], KEYS, st.sampled_from([b"f", b"g" * 65])),
    st.builds(lambda key, ms: [b"PEXPIREAT", key, ms], KEYS, st.sampled_from([b"1", b"99999999999999"])),
    st.builds(lambda name, key: [name, key], st.sampled_from([b"DEL", b"TYPE", b"PEXPIRETIME", b"PERSIST"]), KEYS),
    st.builds(lambda key: [b"OBJECT", b"ENCODING", key], KEYS),
    st.sampled_from([[b"DBSIZE"], [b"FLUSHALL"], [b"FLUSHDB", b"ASYNC"]]),
)
LISTINGS = st.sampled_from(
    [[b"KEYS", b"*"], [b"KEYS", b"*[ab]"], [b"SCAN", b"0", b"COUNT", b"100"], [b"SCAN", b"0", b"TYPE", b"hash", b"COUNT", b"100"]]
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(st.one_of(COMMANDS, COMMANDS, LISTINGS), max_size=30), protocol=st.sampled_from([2, 3]))
def test_random_commands_get_the_same_replies(ports: Ports, commands: list[list[bytes]], protocol: int) -> None:
    said = []
    for port in ports:
        with RawClient(port) as client:
            client.call("HELLO", protocol)
            client.call("FLUSHALL")
            client.send(b"".join(encode_command(*words) for words in commands))
            replies = [client.reply() for _ in commands]
            said.append([canonical(one) if words[0] in (b"KEYS", b"SCAN") else one for words, one in zip(commands, replies, strict=True)])
    assert said[0] == said[1]
