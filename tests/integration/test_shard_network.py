"""Connections of a real shard: limits, slow readers, long pipelines, bad neighbours, orderly ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.resp import RawClient, encode_command
from tests.support.shards import REPOSITORY, ShardProcess, running_shards

OK = b"+OK\r\n"


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    with running_shards(tmp_path, options={"clients_max": 3, "bulk_bytes_max": 2 << 20}) as [one]:
        yield one


def resident_bytes(shard: ShardProcess) -> int:
    assert shard.process is not None
    pages = int(Path(f"/proc/{shard.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_pipeline_longer_than_any_buffer_is_answered_in_order(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        for start in range(0, 20_000, 5_000):
            client.send(b"".join(encode_command("ECHO", number) for number in range(start, start + 5_000)))
            for number in range(start, start + 5_000):
                assert client.reply() == b"$%d\r\n%d\r\n" % (len(str(number)), number)


def test_a_reader_that_does_not_read_costs_bounded_memory(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client, RawClient(shard.port) as other:
        assert client.call("SET", "big", b"x" * (1 << 20)) == OK
        before = resident_bytes(shard)
        client.send(encode_command("GET", "big") * 300)
        assert other.call("PING") == b"+PONG\r\n"
        assert other.call("GET", "big") == b"$1048576\r\n" + b"x" * (1 << 20) + b"\r\n"
        assert resident_bytes(shard) - before < 64 << 20
        for _ in range(300):
            assert len(client.reply()) == len(b"$1048576\r\n\r\n") + (1 << 20)
        assert client.call("PING") == b"+PONG\r\n"


def test_more_clients_than_the_limit_are_told_so(shard: ShardProcess) -> None:
    with RawClient(shard.port) as first, RawClient(shard.port) as second, RawClient(shard.port) as third:
        assert [one.call("PING") for one in (first, second, third)] == [b"+PONG\r\n"] * 3
        with RawClient(shard.port) as fourth:
            assert fourth.reply() == b"-ERR max number of clients reached\r\n"
            assert fourth.at_end()
        with RawClient(shard.admin_socket) as admin:
            assert admin.call("PING") == b"+PONG\r\n"
        assert first.call("QUIT") == OK
        assert first.at_end()
    with RawClient(shard.port) as fifth:
        assert fifth.call("PING") == b"+PONG\r\n"


def test_running_out_of_descriptors_does_not_stop_the_shard(tmp_path: Path) -> None:
    with running_shards(tmp_path) as [shard]:
        assert shard.process is not None
        with RawClient(shard.port) as client:
            assert client.call("PING") == b"+PONG\r\n"
            used = len(list(Path(f"/proc/{shard.process.pid}/fd").iterdir()))
            resource.prlimit(shard.process.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
            crowd = [socket.create_connection(("127.0.0.1", shard.port)) for _ in range(20)]
            assert client.call("PING") == b"+PONG\r\n"
            for one in crowd:
                one.close()
            assert client.call("SET", "a", "b") == OK


def test_nothing_is_run_after_quit_or_a_protocol_error(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        client.send(encode_command("SET", "a", 1) + encode_command("QUIT") + encode_command("SET", "a", 2))
        assert [client.reply(), client.reply(), client.reply()] == [OK, OK, b""]
    with RawClient(shard.port) as client:
        client.send(encode_command("GET", "a") + b"*1\r\n$x\r\n" + encode_command("SET", "a", 3))
        assert [client.reply(), client.reply()] == [b"$1\r\n1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"]
        assert client.at_end()
    with RawClient(shard.port) as client:
        assert client.call("GET", "a") == b"$1\r\n1\r\n"


def test_a_value_beyond_the_limit_is_refused(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        assert client.call("SET", "a", b"x" * (2 << 20)) == OK
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2097153\r\n")
        assert client.reply() == b"-ERR Protocol error: invalid bulk length\r\n"
        assert client.at_end()


def test_the_last_replies_are_sent_to_a_client_that_has_finished_sending(shard: ShardProcess) -> None:
    with socket.create_connection(("127.0.0.1", shard.port)) as client:
        client.sendall(encode_command("PING") * 2_000)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65_536):
            received += chunk
    assert received == b"+PONG\r\n" * 2_000


def test_reset_makes_a_connection_new(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        assert client.call("HELLO", 3, "SETNAME", "me").startswith(b"%7")
        assert client.call("CLIENT", "GETNAME") == b"$2\r\nme\r\n"
        assert client.call("RESET") == b"+RESET\r\n"
        assert client.call("CLIENT", "GETNAME") == b"$-1\r\n"


def test_the_admin_socket_is_for_its_owner_alone(shard: ShardProcess) -> None:
    assert stat.S_IMODE(shard.admin_socket.stat().st_mode) & 0o077 == 0


def test_sigterm_ends_in_order_with_clients_connected(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        assert client.call("SET", "a", 1) == OK
        assert shard.stop() == 0
        assert client.at_end()
    assert not shard.admin_socket.exists()
    assert '"event": "stopped"' in shard.log
    shard.start()
    with RawClient(shard.port) as client:
        assert client.call("GET", "a") == b"$1\r\n1\r\n"


def test_sigterm_while_the_storage_is_opened_ends_in_order(shard: ShardProcess) -> None:
    shard.stop()
    shard.paths.topology.unlink()
    os.mkfifo(shard.paths.topology)  # is read after the live database was opened, and waits for whoever writes
    command = [sys.executable, "-m", "server", "--config", str(shard.data_dir / "shard.toml")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        with shard.paths.topology.open("wb"):
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert b'"event": "stopped"' in log


def test_acknowledged_writes_survive_a_kill(shard: ShardProcess) -> None:
    with RawClient(shard.port) as client:
        client.send(b"".join(encode_command("SET", f"k{number}", number) for number in range(3_000)))
        acknowledged = [client.reply() for _ in range(1_500)]
        assert acknowledged == [OK] * 1_500
        assert shard.process is not None
        shard.process.send_signal(signal.SIGKILL)
    shard.kill()
    shard.start()
    with RawClient(shard.port) as client:
        for number in range(1_500):
            assert client.call("GET", f"k{number}") == b"$%d\r\n%d\r\n" % (len(str(number)), number)


def test_a_second_process_can_not_open_the_same_directory(shard: ShardProcess) -> None:
    command = [sys.executable, "-m", "server", "--config", str(shard.data_dir / "shard.toml")]
    second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process has it open" in second.stderr
    with RawClient(shard.admin_socket) as admin:
        assert admin.call("PING") == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name = 'a'", "data_dir: Field required"),
        ("name = 'a'\ndata_dir = '/x'\nport = 7000\nadmin_socket = '/x/s'\nhost = '0.0.0.0'", "loopback"),
        (f"name = 'a'\ndata_dir = '/x'\nport = 7000\nadmin_socket = '/{'x' * 120}'", "shorter path"),
        ("name = 'a'\ndata_dir = '/x'\nport = 7000\nadmin_socket = '/x/s'\nhost = 'some-name'", "host some-name is not on loopback"),
        ("name = 'a'\ndata_dir = '/x'\nport = 7000\nadmin_socket = '/x/s'\nhost = ''", "is not on loopback"),
        ("name = 'a'\ndata_dir = '/x'\nport = 7000\nadmin_socket = '/x/s'\nprot = 1", "prot: there is no such setting"),
        ("name = ", "can't be read"),
    ],
)
def test_wrong_settings_are_one_message_and_exit_code_2(tmp_path: Path, content: str, said: str) -> None:
    config = tmp_path / "shard.toml"
    config.write_text(content)
    command = [sys.executable, "-m", "server", "--config", str(config)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_misspelt_variable_is_one_message_and_exit_code_2(shard: ShardProcess) -> None:
    ended = started_again(shard, {}, {"REDKV_SHARD_REQUIREPAS": "secret"})
    assert ended.returncode == 2
    assert ended.stderr == "the environment has REDKV_SHARD_REQUIREPAS: there is no such setting\n"


def test_a_start_that_fails_is_one_message_and_exit_code_1(shard: ShardProcess, tmp_path: Path) -> None:
    other = {"data_dir": str(tmp_path / "other"), "admin_socket": str(tmp_path / "other" / "s")}
    ended = started_again(shard, other, {})
    assert ended.returncode == 1
    assert f"('127.0.0.1', {shard.port})" in ended.stderr
    assert "address already in use" in ended.stderr
    assert '"level": "error"' not in ended.stderr
    assert "Traceback" not in ended.stderr
    file = tmp_path / "file"
    file.touch()
    ended = started_again(shard, other | {"data_dir": str(file / "below")}, {})
    assert ended.returncode == 1
    assert ended.stderr == f"the directory {file}/below can't be made: Not a directory\n"


def started_again(shard: ShardProcess, settings: dict[str, str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A second process with the settings of a running shard, but for these."""
    lines = (shard.data_dir / "shard.toml").read_text().splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in settings]
    config = shard.data_dir / "second.toml"
    config.write_text("\n".join([*kept, *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]))
    command = [sys.executable, "-m", "server", "--config", str(config)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env={**os.environ, **environment})
