"""A stack's folder without its processes: what is made, refused, kept and removed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipeline.format.errors import FormatError, UsageError
from pipeline.format.slots import SLOT_COUNT
from pipeline.settings import ClusterSettings
from pipeline.stack.folder import ADMIN_SOCKET_BYTES_MAX, StackFolder
from pipeline.stack.local import Stack
from pipeline.stack.processes import Running

GONE = Running(pid=1, boot="an older boot", ticks=1, log_start=0)


def made(root: Path) -> StackFolder:
    folder = StackFolder(root)
    with folder.locked():
        folder.prepare()
    return folder


def test_ports_and_credentials_are_chosen_once(tmp_path: Path) -> None:
    first = made(tmp_path / "stack")
    again = made(tmp_path / "stack")
    assert again.record == first.record
    assert again.seaweed == first.seaweed
    ports = [*first.record.ports.values(), *first.record.s3_ports.values()]
    assert len(set(ports)) == len(ports)


def test_what_is_noted_is_kept(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.note("node-1-a", GONE)
    assert made(tmp_path).record.running == {"node-1-a": GONE}


def test_the_topology_owns_every_slot(tmp_path: Path) -> None:
    topology = made(tmp_path).topology
    assert topology.unowned() == 0
    assert sum(one.last - one.first + 1 for shard in topology.shards for one in shard.slots) == SLOT_COUNT
    assert [shard.name for shard in topology.shards] == [f"node-{node}-{letter}" for node in (1, 2, 3) for letter in "ab"]


def test_settings_files_agree_with_each_other(tmp_path: Path) -> None:
    folder = made(tmp_path)
    cluster = ClusterSettings.from_file(folder.settings)
    for node in folder.topology.nodes:
        sidecar = tomllib.loads((folder.sidecar(node.name) / "sidecar.toml").read_text())
        assert (sidecar["node"], sidecar["store"], sidecar["cluster"]) == (node.name, cluster.store, cluster.cluster)
        assert node.sidecar_url == f"http://127.0.0.1:{sidecar['port']}"
        for shard, known in zip(node.shards, sidecar["shards"], strict=True):
            own = tomllib.loads((folder.shard(node.name, shard.name) / "shard.toml").read_text())
            assert {name: own[name] for name in known} == known
            assert own["port"] == shard.port


def test_no_secret_stands_in_the_settings(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for path in (folder.settings, tmp_path / "stack.json", *tmp_path.rglob("*.toml")):
        assert folder.seaweed.secret_key not in path.read_text()


def test_admin_sockets_of_a_deep_folder_lie_in_a_private_short_one(tmp_path: Path) -> None:
    deep = made(tmp_path / ("d" * ADMIN_SOCKET_BYTES_MAX))
    sockets = Path(deep.record.sockets)
    assert len(str(sockets / "node-1-a.sock")) <= ADMIN_SOCKET_BYTES_MAX
    assert not sockets.is_relative_to(deep.root)
    assert sockets.stat().st_mode & 0o777 == 0o700
    deep.remove_sockets()
    assert not sockets.exists()
    with deep.locked():
        deep.prepare()
    assert Path(deep.record.sockets).is_dir()
    deep.remove_sockets()


@pytest.mark.parametrize("name", ["redkv.toml", "logs", "notes.txt"])
def test_a_folder_with_somebody_elses_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name}: choose an empty or new one"):
        made(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert not StackFolder(tmp_path).exists


def test_a_first_start_that_was_cut_short_is_taken_up(tmp_path: Path) -> None:
    made(tmp_path)
    for name in ("stack.json", "redkv.toml"):
        (tmp_path / name).unlink()
    for path in sorted((tmp_path / "nodes").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "nodes").rmdir()
    assert made(tmp_path).exists


def test_only_what_the_stack_made_is_removed(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    Stack(tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_goes_and_removing_twice_is_no_error(tmp_path: Path) -> None:
    made(tmp_path / "stack")
    Stack(tmp_path / "stack").remove()
    assert list(tmp_path.iterdir()) == []
    Stack(tmp_path / "stack").remove()
    assert Stack(tmp_path / "stack").stop() == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be used"):
        Stack(tmp_path / "file").start()


def test_two_commands_at_once(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with folder.locked():
        for call in (Stack(tmp_path).start, Stack(tmp_path).stop, Stack(tmp_path).remove):
            with pytest.raises(UsageError, match="another command starts or stops the stack"):
                call()


def test_a_record_that_is_broken(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(FormatError, match=r"stack\.json is not JSON"):
        Stack(tmp_path).stop()


def test_what_is_asked_of_no_stack(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "none")
    with pytest.raises(UsageError, match=r"there is no stack in .*none: run `redkv up`"):
        _ = stack.topology
    made(tmp_path / "one")
    with pytest.raises(UsageError, match="no member node-9-a: it has none yet"):
        Stack(tmp_path / "one").kill("node-9-a")
