from __future__ import annotations

import random
import subprocess
import sys

import pytest

from pipeline.stack.ports import FIRST_PORT, LAST_PORT, accepts, free_ports, is_free
from tests.support.ports import taken_port
from tests.support.shards import REPOSITORY


def test_free_ports_differ_and_can_be_bound() -> None:
    found = free_ports(40)
    assert len(set(found)) == 40
    assert all(FIRST_PORT <= port < LAST_PORT for port in found)
    assert all(is_free(port) for port in found)


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with taken_port() as port:
        assert not is_free(port)
        assert accepts(port)
    assert is_free(port)
    assert not accepts(port)


def test_what_a_process_chose_no_other_chooses() -> None:
    given = set(free_ports(50))
    script = "from pipeline.stack.ports import free_ports; print(*free_ports(50), flush=True); input()"
    command = [sys.executable, "-c", script]
    others = [subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = []
    for other in others:  # all are alive until all have chosen
        assert other.stdout is not None
        told.append({int(word) for word in other.stdout.readline().split()})
    for other in others:
        other.communicate("\n")
    assert [len(ports) for ports in (given, *told)] == [50, 50, 50]
    assert len(given.union(*told)) == 150


def test_a_port_is_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = free_ports(2)
    monkeypatch.setattr(random, "sample", lambda _range, _count: chosen)
    assert free_ports(1) == []
