"""Limits of a real shard: slow readers, idle clients, long pipelines, many connections, long values, pauses, kills; and memory."""

from __future__ import annotations

import resource
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from tests.support.resp import RawClient, encode_command
from tests.support.shards import REPOSITORY, ShardProcess, running_shards

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
STALLED_S = 1.0  # a socket that takes nothing for so long is not read from
GROWTH_BYTES_MAX = 16 << 20  # of docs/serving.md, for one client
CONNECTION_BYTES_MAX = 8 << 10  # of docs/serving.md, for each that is idle
BUSY_BYTES_MAX = 16 << 10  # and for each that has just been busy


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path) as [one]:
        yield one


def resident_bytes(shard: ShardProcess) -> int:
    assert shard.process is not None
    return int(Path(f"/proc/{shard.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def info(client: RawClient, section: str) -> dict[str, str]:
    text = client.call("INFO", section).partition(b"\r\n")[2].decode()
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def await_info(client: RawClient, section: str, name: str, value: str) -> None:
    """Ask until it is so; the test's own time limit ends it otherwise."""
    for _ in range(200_000):
        if info(client, section)[name] == value:
            return
    raise AssertionError(f"{name} is {info(client, section)[name]}, not {value}")


@pytest.mark.parametrize("limits", ["normal 4mb 0 0", "normal 0 1mb 1"], ids=["hard", "soft"])
def test_a_client_that_does_not_read_is_cut_off(shard: ShardProcess, limits: str) -> None:
    with RawClient(shard.port) as admin, RawClient(shard.port) as slow:
        assert admin.call("SET", "big", b"x" * (24 << 20)) == OK
        assert admin.call("CONFIG", "SET", "client-output-buffer-limit", limits) == OK
        slow.send(encode_command("CLIENT", "SETNAME", "slowest") + encode_command("GET", "big"))
        await_info(admin, "stats", "clients_cut_output", "1")
        assert slow.reply() == OK
        try:
            rest = slow.reply()
        except ConnectionResetError:
            rest = b""
        assert len(rest) < 24 << 20
        assert info(admin, "clients")["connected_clients"] == "1"
    assert '"event": "client cut off: it does not read its replies"' in shard.log
    assert '"name": "slowest"' in shard.log


def test_idle_clients_are_closed_and_others_not(shard: ShardProcess) -> None:
    """Busy is who said something within the second before: on a machine that stands still for longer, nobody has."""
    with RawClient(shard.admin_socket) as admin, RawClient(shard.port) as idle, ExitStack() as busy_ones:
        assert admin.call("CONFIG", "SET", "timeout", 1) == OK
        closed, busy, said_s = 0, busy_ones.enter_context(RawClient(shard.port)), monotonic()
        while int(info(admin, "stats")["clients_closed_idle"]) == closed:
            before_s, said_s = said_s, monotonic()
            if not _answers(busy):
                assert monotonic() - before_s > 1
                closed, busy = closed + 1, busy_ones.enter_context(RawClient(shard.port))
        assert idle.at_end()


def _answers(client: RawClient) -> bool:
    try:
        return client.call("PING") == PONG
    except ConnectionError:
        return False


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_a_pipeline_of_any_length_is_answered_in_bounded_memory(shard: ShardProcess, count: int) -> None:
    """The client sends until nothing goes any more, and only then begins to read."""
    raw = memoryview(b"".join(encode_command("ECHO", f"{number:032}") for number in range(count)))
    expected = b"".join(b"$32\r\n%032d\r\n" % number for number in range(count))
    with RawClient(shard.port) as warm:
        assert warm.call("PING") == PONG
    before = most = resident_bytes(shard)
    received = 0
    with socket.create_connection(("127.0.0.1", shard.port)) as client:
        client.setblocking(False)
        late = False
        while received < len(expected):
            readable, writable, _ = select.select([client] if late else [], [client] if raw else [], [], STALLED_S)
            late = late or not writable
            if writable:
                raw = raw[client.send(raw) :]
            if readable:
                part = client.recv(1 << 20)
                assert part == expected[received : received + len(part)]
                assert part
                received += len(part)
            most = max(most, resident_bytes(shard))
    assert most - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize(("idle", "busy"), [(1_000, 100), pytest.param(10_000, 1_000, marks=pytest.mark.full)])
def test_many_connections_take_bounded_memory(tmp_path: Path, idle: int, busy: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with running_shards(tmp_path, options={"clients_max": idle + busy + 1}) as [shard], ExitStack() as open_ones:
            admin = open_ones.enter_context(RawClient(shard.port))
            assert admin.call("SET", "k", b"x" * 100) == OK
            before = resident_bytes(shard)
            for _ in range(idle):
                open_ones.enter_context(socket.create_connection(("127.0.0.1", shard.port)))
            await_info(admin, "clients", "connected_clients", str(idle + 1))
            assert (resident_bytes(shard) - before) / idle < CONNECTION_BYTES_MAX
            before = resident_bytes(shard)
            working = [open_ones.enter_context(RawClient(shard.port)) for _ in range(busy)]
            for _ in range(5):
                for one in working:
                    one.send(encode_command("GET", "k") * 16)
                for one in working:
                    for _ in range(16):
                        assert one.reply() == b"$100\r\n" + b"x" * 100 + b"\r\n"
            assert (resident_bytes(shard) - before) / busy < BUSY_BYTES_MAX
            assert info(admin, "clients")["connected_clients"] == str(idle + busy + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_maxclients_changes_while_it_runs(shard: ShardProcess) -> None:
    with RawClient(shard.port) as first:
        assert first.call("CONFIG", "SET", "maxclients", 1) == OK
        with RawClient(shard.port) as second:
            assert second.reply() == b"-ERR max number of clients reached\r\n"
            assert second.at_end()
        assert first.call("CONFIG", "SET", "maxclients", 2) == OK
        with RawClient(shard.port) as third:
            assert third.call("PING") == PONG


@pytest.mark.parametrize("seconds", [0, 1, 32_768, (1 << 31) - 1])
def test_clients_come_in_whatever_the_keepalive(shard: ShardProcess, seconds: int) -> None:
    with RawClient(shard.port) as first:
        assert first.call("CONFIG", "SET", "tcp-keepalive", seconds) == OK
        with RawClient(shard.port) as second:
            assert second.call("PING") == PONG


def test_limits_of_values_and_commands_change_for_open_connections(shard: ShardProcess) -> None:
    with RawClient(shard.port) as admin:
        with RawClient(shard.port) as client:
            assert client.call("PING") == PONG
            assert admin.call("CONFIG", "SET", "proto-max-bulk-len", "1mb") == OK
            assert client.call("SET", "a", b"x" * (1 << 20)) == OK
            assert client.call("APPEND", "a", "x") == b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048577\r\n")
            assert client.reply() == b"-ERR Protocol error: invalid bulk length\r\n"
            assert client.at_end()
        assert admin.call("CONFIG", "SET", "client-query-buffer-limit", "1mb") == OK
        with RawClient(shard.port) as client:
            client.send(b"*3\r\n$4\r\nMSET\r\n$600000\r\n" + b"k" * 600_000 + b"\r\n$600000\r\n")
            assert client.reply() == b"-ERR Protocol error: too big request\r\n"
            assert client.at_end()
        assert info(admin, "stats")["protocol_errors"] == "2"


def test_paused_writes_wait_and_reads_go_on(shard: ShardProcess) -> None:
    with RawClient(shard.port) as admin, RawClient(shard.port) as client:
        assert admin.call("CLIENT", "PAUSE", 600_000, "WRITE") == OK
        client.send(encode_command("GET", "a") + encode_command("SET", "a", 1) + encode_command("GET", "a"))
        assert client.reply() == b"$-1\r\n"
        await_info(admin, "clients", "blocked_clients", "1")
        assert admin.call("GET", "a") == b"$-1\r\n"
        assert admin.call("CLIENT", "UNPAUSE") == OK
        assert [client.reply(), client.reply()] == [OK, b"$1\r\n1\r\n"]


def test_a_pause_of_everything_ends_by_itself(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client, RawClient(shard.admin_socket) as admin:
        client.send(encode_command("CLIENT", "PAUSE", 200) + encode_command("PING") * 2)
        assert client.reply() == OK
        assert admin.call("PING") == PONG
        assert [client.reply(), client.reply()] == [PONG, PONG]


def test_killed_clients_are_gone(shard: ShardProcess) -> None:
    with RawClient(shard.port) as admin, RawClient(shard.port) as one, RawClient(shard.port) as two, RawClient(shard.port) as three:
        number = one.call("CLIENT", "ID").strip(b":\r\n")
        assert admin.call("CLIENT", "KILL", "ID", number) == b":1\r\n"
        assert one.at_end()
        address = dict(part.split("=", 1) for part in two.call("CLIENT", "INFO").decode().split() if "=" in part)["addr"]
        assert admin.call("CLIENT", "KILL", address) == OK
        assert two.at_end()
        assert three.call("PING") == PONG
        assert admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") == b":2\r\n"
        assert admin.at_end()
        assert three.at_end()


def test_beyond_loopback_a_shard_needs_a_password(tmp_path: Path) -> None:
    config = tmp_path / "shard.toml"
    settings = f"name = 'a'\ndata_dir = '{tmp_path}'\nport = 7000\nadmin_socket = '{tmp_path}/s'\nhost = '0.0.0.0'\n"
    config.write_text(settings)
    command = [sys.executable, "-m", "server", "--config", str(config)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "REDKV_SHARD_REQUIREPASS" in ended.stderr
    check = "import sys; from pathlib import Path; from server.settings import load_settings; print(load_settings(Path(sys.argv[1])).host)"
    allowed = subprocess.run(
        [sys.executable, "-c", check, str(config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "REDKV_SHARD_REQUIREPASS": "long and secret"},
    )
    assert allowed.stdout == "0.0.0.0\n"
