"""CONFIG, CLIENT, SLOWLOG, LATENCY, COMMAND, AUTH, what tools ask a server: the same bytes from a real redis-server and a shard.

What differs on purpose is not asked, and stands in docs/serving.md: a password is not shown, a saving command is refused, tracking too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ports import free_port
from tests.support.redis_server import running_redis
from tests.support.resp import RawClient, encode_command
from tests.support.shards import ShardProcess, topology_of
from tests.support.versions import ALL_SLOTS
from tests.support.words import words_of

COMMANDS = """
CONFIG
CONFIG NOSUCH
CONFIG HELP
CONFIG GET
CONFIG GET nosuch
CONFIG GET timeout
CONFIG GET TIMEOUT Time[o]ut
CONFIG GET proto-max-bulk-len
CONFIG GET hash-max-listpack-entries
CONFIG GET zset-max-listpack-entries
CONFIG GET zset-max-ziplist-value
CONFIG GET requirepass
CONFIG GET maxclients
CONFIG GET save
CONFIG GET appendfsync
CONFIG GET slowlog-max-len
CONFIG GET slowlog-log-slower-than
CONFIG GET latency-tracking
CONFIG GET maxmemory
CONFIG GET tcp-keepalive
CONFIG GET cluster-enabled
CONFIG SET timeout
CONFIG SET timeout -1
CONFIG SET timeout x
CONFIG SET timeout 1.5
CONFIG SET nosuch 1
CONFIG SET nosuch 1 timeout x
CONFIG SET timeout 1 nosuch 2
CONFIG SET timeout x nosuch 2
CONFIG SET timeout 1 timeout 2
CONFIG SET hash-max-ziplist-entries 1 hash-max-listpack-entries 2
CONFIG SET timeout 1 maxclients
CONFIG SET port 1 bogus
CONFIG SET databases 20
CONFIG SET cluster-enabled no
CONFIG SET timeout x databases 20
CONFIG SET maxclients 0
CONFIG SET maxclients 99999999999
CONFIG SET appendfsync sometimes
CONFIG SET appendfsync ALWAYS
CONFIG GET appendfsync
CONFIG SET appendfsync everysec
CONFIG SET latency-tracking maybe
CONFIG SET latency-tracking YES
CONFIG SET client-output-buffer-limit "normal 0 0"
CONFIG SET client-output-buffer-limit "normal 1mb 2k 3"
CONFIG GET client-output-buffer-limit
CONFIG SET client-output-buffer-limit "nosuch 1mb 2k 3"
CONFIG SET client-output-buffer-limit "normal x 2k 3"
CONFIG SET client-output-buffer-limit "normal 1mb 2k -3"
CONFIG SET client-output-buffer-limit "normal 0 0 0"
CONFIG SET client-query-buffer-limit 1k
CONFIG SET client-query-buffer-limit 2mb
CONFIG GET client-query*
CONFIG SET client-query-buffer-limit 1gb
CONFIG SET proto-max-bulk-len 1k
CONFIG SET proto-max-bulk-len 1gb
CONFIG GET proto-max-bulk-len
CONFIG SET proto-max-bulk-len 1.5gb
CONFIG SET proto-max-bulk-len 512MB
CONFIG SET hash-max-listpack-entries -1
CONFIG SET hash-max-ziplist-entries 12
CONFIG GET hash-max-listpack-entries
CONFIG SET hash-max-listpack-entries 512
CONFIG SET hash-max-listpack-value x
CONFIG SET slowlog-log-slower-than -2
CONFIG SET slowlog-max-len -2
CONFIG SET slowlog-log-slower-than 99999999999999999999
CONFIG SET save ""
CONFIG SET timeout 77 maxclients 0
CONFIG GET timeout
CONFIG RESETSTAT
CONFIG RESETSTAT x
CLIENT HELP
CLIENT KILL x
CLIENT KILL
CLIENT KILL ID x
CLIENT KILL ID 0
CLIENT KILL ID -1
CLIENT KILL ID 77777
CLIENT KILL TYPE bogus
CLIENT KILL TYPE pubsub
CLIENT KILL TYPE normal SKIPME maybe
CLIENT KILL ADDR 1.2.3.4:1 SKIPME yes
CLIENT KILL LADDR 1.2.3.4:1
CLIENT KILL USER nobody
CLIENT KILL USER default ID 12345
CLIENT KILL BOGUS x
CLIENT KILL ADDR
CLIENT KILL ID 1 ADDR
CLIENT PAUSE
CLIENT PAUSE x
CLIENT PAUSE -1
CLIENT PAUSE 1 BOGUS
CLIENT PAUSE x BOGUS
CLIENT PAUSE 1 WRITE
CLIENT PAUSE 1
CLIENT PAUSE 1 ALL x
CLIENT UNPAUSE
CLIENT UNPAUSE x
CLIENT REPLY maybe
CLIENT REPLY ON
CLIENT TRACKING
CLIENT TRACKING off
CLIENT TRACKING maybe
CLIENT TRACKING on BOGUS
CLIENT TRACKING off BOGUS
CLIENT TRACKING on PREFIX a
CLIENT CACHING yes
CLIENT GETREDIR
CLIENT TRACKINGINFO
CLIENT UNBLOCK 1
CLIENT UNBLOCK x
CLIENT UNBLOCK 1 BOGUS
CLIENT UNBLOCK 1 TIMEOUT
CLIENT UNBLOCK 1 error
CLIENT UNBLOCK 1 error x
CLIENT LIST ID
CLIENT LIST ID 0
CLIENT LIST TYPE master
SHUTDOWN BOGUS
SHUTDOWN SAVE NOSAVE
SHUTDOWN ABORT
SHUTDOWN ABORT NOW
WAIT
WAIT 0 0
WAIT x 0
WAIT 1 -1
WAIT 1 x
WAIT 1 1
TIME x
LASTSAVE x
ROLE
ROLE x
DEBUG
DEBUG SLEEP 0
SLOWLOG
SLOWLOG HELP
SLOWLOG GET x
SLOWLOG GET -2
SLOWLOG GET 1 2
SLOWLOG LEN x
SLOWLOG RESET
SLOWLOG BOGUS
LATENCY
LATENCY HELP
LATENCY RESET
LATENCY RESET command
LATENCY LATEST
LATENCY HISTORY command
LATENCY GRAPH command
LATENCY HISTOGRAM bogus
LATENCY NOSUCH
COMMAND HELP
COMMAND LIST x
COMMAND LIST FILTERBY
COMMAND LIST FILTERBY BOGUS x
COMMAND LIST FILTERBY MODULE x
COMMAND LIST FILTERBY ACLCAT bogus
COMMAND LIST FILTERBY PATTERN hge[t]
COMMAND GETKEYSANDFLAGS SET a b
COMMAND GETKEYSANDFLAGS GET a
COMMAND GETKEYSANDFLAGS MSET a b c d
COMMAND GETKEYSANDFLAGS PING
COMMAND GETKEYSANDFLAGS NOSUCH c d
COMMAND GETKEYSANDFLAGS ROLE x
COMMAND GETKEYSANDFLAGS SET a b GET
COMMAND DOCS nosuch
COMMAND INFO config|get config|set config|rewrite config|resetstat config|help
COMMAND INFO slowlog|get slowlog|len slowlog|reset slowlog|help
COMMAND INFO latency|histogram latency|reset latency|latest latency|history latency|graph latency|doctor latency|help
COMMAND INFO command|list command|getkeysandflags command|help
COMMAND INFO client|kill client|pause client|unpause client|reply client|unblock client|tracking client|trackinginfo
COMMAND INFO client|caching client|getredir client|help
COMMAND INFO wait time lastsave bgsave bgrewriteaof save debug shutdown role
INFO nosuch
AUTH x
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    root = tmp_path_factory.mktemp("o")
    shard = ShardProcess("node-1-a", root / "s", free_port(), {"output_hard_bytes": 0, "output_soft_bytes": 0, "output_soft_s": 0})
    shard.follow(topology_of([shard], [ALL_SLOTS]))
    with running_redis(root) as redis_port:
        shard.start()
        try:
            yield redis_port, shard.port
        finally:
            shard.stop()


@pytest.fixture
def locked(servers: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Both with a password, which is taken away again at the end."""
    admins = [RawClient(port) for port in servers]
    for admin in admins:
        assert admin.call("CONFIG", "SET", "requirepass", "secret") == b"+OK\r\n"
    yield servers
    for admin in admins:
        assert admin.call("CONFIG", "SET", "requirepass", "") == b"+OK\r\n"
        admin.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_listed_commands_get_the_same_bytes(servers: tuple[int, int], protocol: int) -> None:
    redis_port, shard_port = servers
    differences = []
    with RawClient(redis_port) as redis, RawClient(shard_port) as shard:
        for client in (redis, shard):
            client.call("HELLO", protocol)
        for line in filter(None, COMMANDS.splitlines()):
            words = words_of(line)
            expected, got = redis.call(*words), shard.call(*words)
            if expected != got:
                differences.append(f"{line}\n  redis {expected[:300]!r}\n  shard {got[:300]!r}")
    assert not differences, "\n" + "\n".join(differences)


AT_THE_DOOR = """
PING
ping x
NOSUCH x
GET
GET a b
GET a
CLIENT
CLIENT ID
CLIENT NOSUCH
CONFIG GET
COMMAND
HELLO
HELLO 3
HELLO x
HELLO 9
HELLO 3 SETNAME x
HELLO 3 SETNAME "a b"
HELLO 3 BOGUS
HELLO 3 AUTH default wrong
HELLO 3 AUTH nobody secret
AUTH
AUTH wrong
AUTH nobody secret
AUTH a b c
RESET
GET a
AUTH secret
PING
AUTH wrong
PING
RESET
PING
AUTH default secret
GET {t}nokey
RESET
"""


def test_who_has_not_authenticated_gets_the_same_answers(locked: tuple[int, int]) -> None:
    said = []
    for port in locked:
        with RawClient(port) as client:
            said.append([(line, client.call(*words_of(line))) for line in filter(None, AT_THE_DOOR.splitlines())])
    assert said[0] == said[1]


BEFORE_AUTH = [
    b"*11\r\n",
    b"*10\r\n$16385\r\n",
    b"*2\r\n$4\r\nECHO\r\n$16384\r\n" + b"x" * 16_384 + b"\r\n*11\r\n",
    encode_command("AUTH", "wrong") + encode_command(*["GET"] * 11),
    encode_command("AUTH", "secret") + encode_command("DEL", *["{t}nokey"] * 20) + encode_command("ECHO", "x" * 20_000) + b"*z\r\n",
    encode_command("PING") * 50 + encode_command("AUTH", "secret") + encode_command("PING") * 50 + b"*z\r\n",
    encode_command("GET", "a") + b"AUTH secret\r\nPING\r\n" + encode_command("RESET") + encode_command("PING") + b"*z\r\n",
    encode_command("PING") + encode_command("QUIT") + encode_command("PING"),
]


@pytest.mark.parametrize("raw", BEFORE_AUTH, ids=[repr(raw[:24]) for raw in BEFORE_AUTH])
def test_limits_before_authentication_are_the_same(locked: tuple[int, int], raw: bytes) -> None:
    said = []
    for port in locked:
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
    assert said[0]


def test_replies_that_are_not_wanted_are_left_out_alike(servers: tuple[int, int]) -> None:
    raw = b"".join(
        encode_command(*line.split())
        for line in (
            "ECHO 1",
            "CLIENT REPLY SKIP",
            "ECHO 2",
            "ECHO 3",
            "CLIENT REPLY OFF",
            "ECHO 4",
            "CLIENT REPLY SKIP",
            "NOSUCH",
            "CLIENT REPLY ON",
            "ECHO 5",
        )
    )
    said = []
    for port in servers:
        with RawClient(port) as client:
            client.send(raw)
            said.append([client.reply() for _ in range(4)])
    assert said[0] == said[1]
    assert said[0][-1] == b"$1\r\n5\r\n"


def test_slow_log_entries_are_the_same_but_for_times(servers: tuple[int, int]) -> None:
    """One command at a time; of entries, the arguments and the client's name."""
    commands: list[list[str | int]] = [
        ["SET", "{t}a", 1],
        ["GET", "{t}a"],
        ["ECHO", "x" * 200],
        ["MGET", *[f"{{t}}{number}" for number in range(40)]],
        ["AUTH", "nobody", "secret"],
        ["HELLO", 2, "AUTH", "default", "secret", "SETNAME", "me"],
        ["CONFIG", "SET", "requirepass", "x", "timeout", "0"],
        ["CONFIG", "SET", "requirepass", ""],
    ]
    said = []
    for port in servers:
        with RawClient(port) as client:
            client.call("SLOWLOG", "RESET")
            client.call("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 6)
            for words in commands:
                client.call(*words)
            client.call("CONFIG", "SET", "slowlog-log-slower-than", -1)  # nothing from now on, however slow the machine
            assert client.call("SLOWLOG", "LEN") == b":6\r\n"
            lines = client.call("SLOWLOG", "GET", -1).split(b"\r\n")
            said.append([line for line in lines if not line.startswith((b":", b"127.0.0.1", b"$15", b"$14"))])
            client.call("SLOWLOG", "RESET")
            assert client.call("SLOWLOG", "GET") == b"*0\r\n"
            client.call("CONFIG", "SET", "slowlog-log-slower-than", 10_000, "slowlog-max-len", 128)
    assert said[0] == said[1]
