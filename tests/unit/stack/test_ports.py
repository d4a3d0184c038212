from __future__ import annotations

from pipeline.stack.ports import FIRST_PORT, LAST_PORT, accepts, free_ports, is_free
from tests.support.ports import taken_port


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(40)
    assert len(set(ports)) == 40
    assert all(FIRST_PORT <= port < LAST_PORT for port in ports)
    assert all(is_free(port) for port in ports)


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with taken_port() as port:
        assert not is_free(port)
        assert accepts(port)
    assert is_free(port)
    assert not accepts(port)
