"""`redkv up` and `redkv down` as users meet them: the real command, in a folder whose path has spaces and is too long for Unix sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stack.local import Stack
from tests.support.ports import free_port, taken_port
from tests.support.processes import below, beyond_loopback, listeners
from tests.support.resp import RawClient

COMMAND_S_MAX = 180
OWN = {"AWS_ACCESS_KEY_ID": "the-users-own", "AWS_SECRET_ACCESS_KEY": "the-users-own"}


class Commands:
    """The command line, with a user's own AWS account in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack(folder)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.redkv(*arguments, "--dir", str(self.folder))

    def redkv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "REDKV_"))}
        environment = {**kept, **OWN, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "COLUMNS": "200"}
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)

    def up(self) -> subprocess.CompletedProcess[str]:
        done = self.run("up")
        assert done.returncode == 0, done
        return done

    def pids(self) -> dict[str, int]:
        return {name: running.pid for name, running in self.stack.members.items()}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    made = Commands(tmp_path_factory.mktemp("stack") / ("a folder " + "of a long name " * 6).strip())
    try:
        made.up()
        yield made
    finally:
        made.run("down", "--purge")


@pytest.fixture
def down(commands: Commands) -> Commands:
    """The stack, stopped, but with its data."""
    commands.run("down")
    return commands


@pytest.fixture
def up(commands: Commands) -> Commands:
    """The stack, up, whatever the test before did with it."""
    commands.up()
    return commands


def test_up_says_where_everything_is_and_that_it_is_up_already(up: Commands) -> None:
    before = up.pids()
    done = up.up()
    assert "is up already" in done.stdout
    assert up.pids() == before
    assert len(before) == 2 + 3 * 3
    topology = up.stack.topology
    for name, address in (
        ("s3", up.stack.s3_endpoint),
        ("metastore", up.stack.metastore.uri),
        *((shard.name, f"127.0.0.1:{shard.port}") for shard in topology.shards),
        *((f"{node.name}-sidecar", node.sidecar_url) for node in topology.nodes),
    ):
        assert any(name in line and address in line for line in done.stdout.splitlines()), (name, done.stdout)


def test_a_shells_own_aws_account_does_not_stand_in_the_way(up: Commands) -> None:
    done = up.redkv("--config", str(up.stack.settings_path), "status")
    assert (done.returncode, "no dataset is loaded yet" in done.stdout) == (0, True), done


def test_the_line_to_try_works(up: Commands) -> None:
    line = next(line for line in up.up().stdout.splitlines() if line.startswith("try: "))
    done = subprocess.run(line.removeprefix("try: ").split(), capture_output=True, text=True, check=False, timeout=COMMAND_S_MAX)
    assert "cluster_state:ok" in done.stdout, done


def test_every_port_is_on_loopback(up: Commands) -> None:
    processes = below(up.folder)
    found = listeners(processes)
    assert {running.pid for running in up.stack.members.values()} <= {process.pid for process in processes}
    assert {shard.port for shard in up.stack.topology.shards} <= set(found)
    assert len(found) >= 11
    assert beyond_loopback(found) == {}


def test_up_starts_what_died_and_names_it(up: Commands) -> None:
    before = up.pids()
    dead = {"node-2-b", "metastore", "node-3-sidecar"}
    for name in dead:
        os.kill(before[name], signal.SIGKILL)
    done = up.up()
    told = {line.split()[0] for line in done.stdout.splitlines() if line.endswith("was down, and is up again")}
    assert told == dead
    after = up.pids()
    assert {name for name in before if before[name] != after[name]} == dead


def test_one_member_crashes_and_comes_back(up: Commands) -> None:
    stack, before = up.stack, up.pids()
    stack.kill("s3")
    assert not stack.members["s3"].alive
    stack.restart("s3")
    stack.restart("node-1-a")  # one that runs is stopped in order first
    after = up.pids()
    assert {name for name in before if before[name] != after[name]} == {"s3", "node-1-a"}
    assert "is up already" in up.up().stdout


def test_down_then_up_brings_the_same_data_back(up: Commands) -> None:
    topology = up.stack.topology
    owner = topology.shards[0]
    with RawClient(owner.port) as client:
        assert client.call("SET", "{06S}kept", "as it was") == b"+OK\r\n"  # the tag's slot is 0
    done = up.run("down")
    assert (done.returncode, "stopped node-1-sidecar" in done.stdout) == (0, True), done
    assert below(up.folder) == []
    assert not Path(up.stack._folder.record.sockets).exists()
    again = up.run("down")
    assert (again.returncode, "nothing of the stack" in again.stdout) == (0, True), again
    up.up()
    assert up.stack.topology == topology
    with RawClient(owner.port) as client:
        assert client.call("GET", "{06S}kept") == b"$9\r\nas it was\r\n"


def test_a_taken_port_is_named_and_nothing_is_started(down: Commands) -> None:
    port = down.stack.topology.shards[-1].port
    with taken_port(port):
        done = down.run("up")
    assert done.returncode == 1
    assert f"node-3-b can't start: port {port} of 127.0.0.1 is taken by another program" in done.stderr
    assert "Traceback" not in done.stderr
    assert below(down.folder) == []


def test_a_member_that_dies_at_its_start_shows_its_log_and_all_is_stopped_again(down: Commands) -> None:
    live = down.stack._folder.shard("node-2", "node-2-a") / "live"
    aside = live.rename(live.with_name("aside"))
    live.write_text("no database")
    try:
        done = down.run("up")
        assert done.returncode == 1
        assert "node-2-a ended while it started; the end of " in done.stderr
        assert str(live) in done.stderr
        assert below(down.folder) == []
    finally:
        live.unlink()
        aside.rename(live)


def test_purge_removes_all_that_the_stack_made(down: Commands) -> None:
    (down.folder / "notes.txt").write_text("mine")
    done = down.run("down", "--purge")
    assert (done.returncode, "removed the data" in done.stdout) == (0, True), done
    assert below(down.folder) == []
    assert [path.name for path in down.folder.iterdir()] == ["notes.txt"]
    refused = down.run("up")
    assert (refused.returncode, "holds notes.txt: choose an empty or new one with --dir" in refused.stderr) == (2, True), refused
    (down.folder / "notes.txt").unlink()
    absent = down.run("down")
    assert (absent.returncode, "there is no stack in" in absent.stdout) == (0, True), absent
