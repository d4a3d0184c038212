from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.format.errors import StoreAccessError
from pipeline.stack.ports import free_ports
from pipeline.stack.processes import MemberStartError, kill, stop
from pipeline.stack.seaweed import BUCKET, PORT_FLAGS, Seaweed, restored
from pipeline.store import Access, ObjectStore
from tests.support.ports import taken_port
from tests.support.processes import below, beyond_loopback, listeners

ROOT = f"s3://{BUCKET}/here"


def test_two_run_side_by_side_on_loopback_alone(tmp_path: Path) -> None:
    both = [Seaweed.new(tmp_path / name) for name in ("one", "two")]
    programs = [seaweed.program(tmp_path / f"{index}.log") for index, seaweed in enumerate(both)]
    running = [program.start() for program in programs]
    try:
        for program, process in zip(programs, running, strict=True):
            program.await_ready(process)
        both[0].store(ROOT).create("mine", b"1")
        assert list(both[1].store(ROOT).list("")) == []
        for seaweed in both:
            found = listeners(below(seaweed.folder))
            assert set(found) <= set(seaweed.ports)  # it opened no port that we did not choose
            assert seaweed.ports[0] in found
            assert beyond_loopback(found) == {}
        assert [path.name for one in running for path in Path("/tmp").glob(f"weed.*.{one.pid}")] == []  # it logs where it was told to
    finally:
        kill(running)
        for seaweed in both:
            seaweed.remove_sockets()


def test_what_was_kept_brings_the_same_data_back(tmp_path: Path) -> None:
    first = Seaweed.new(tmp_path / "s3")
    first.write_aws_files(tmp_path / "aws")
    ports = dict(zip(PORT_FLAGS, first.ports, strict=True))
    second = restored(tmp_path / "s3", ports, tmp_path / "aws" / "credentials")
    assert second == first
    for seaweed, act in ((first, lambda: first.store(ROOT).create("kept", b"1")), (second, lambda: second.store(ROOT).get("kept"))):
        program = seaweed.program(tmp_path / "log")
        running = program.start()
        try:
            program.await_ready(running)
            act()
        finally:
            stop([running])
            seaweed.remove_sockets()
    assert below(tmp_path) == []


def test_files_of_credentials_are_private(tmp_path: Path) -> None:
    Seaweed.new(tmp_path / "s3").write_aws_files(tmp_path / "aws")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "aws").iterdir()}
    assert modes == {"credentials": 0o600, "config": 0o600}


@pytest.mark.parametrize("flag", PORT_FLAGS)
def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path, flag: str) -> None:
    seaweed = Seaweed.new(tmp_path)
    port = seaweed.ports[PORT_FLAGS.index(flag)]
    with taken_port(port), pytest.raises(MemberStartError, match=f"port {port} of 127.0.0.1 is taken"):
        seaweed.program(tmp_path / "log").check_ports()


def test_a_store_can_be_told_whom_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own account in the environment is not met."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-users-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    seaweed = Seaweed.new(tmp_path)
    program = seaweed.program(tmp_path / "log")
    running = program.start()
    try:
        program.await_ready(running)
        assert list(seaweed.store(ROOT).list("")) == []
        wrong = ObjectStore(ROOT, Access(seaweed.endpoint, "us-east-1", seaweed.access_key, "wrong"))
        with pytest.raises(StoreAccessError):
            wrong.get("x")
    finally:
        kill([running])
        seaweed.remove_sockets()
