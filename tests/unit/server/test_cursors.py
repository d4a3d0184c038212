from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.storage import cursors
from server.storage.cursors import Cursors

PLACES_END = 1 << 56  # cursors of versions are below it


@given(process=st.integers(min_value=0), positions=st.lists(st.binary(max_size=3)))
def test_a_number_stands_for_the_position_that_it_was_given_for(process: int, positions: list[bytes]) -> None:
    table = Cursors(process)
    given_out = {position: table.keep(position) for position in positions}
    assert all(PLACES_END < number < 1 << 63 for number in given_out.values())
    assert len(set(given_out.values())) == len(given_out) == len(table)
    for position, number in given_out.items():
        assert table.find(number) == position
        assert table.keep(position) == number


def test_a_number_of_another_process_is_not_known() -> None:
    before, after = Cursors(1), Cursors(2)
    number = before.keep(b"here")
    after.keep(b"there")
    assert after.find(number) is None
    assert after.find(0) is None


def test_those_that_were_not_used_lately_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "POSITIONS_MAX", 3)
    table = Cursors(1)
    numbers = [table.keep(bytes((one,))) for one in range(3)]
    assert table.find(numbers[0]) == b"\x00"
    assert table.keep(b"\x02") == numbers[2]
    table.keep(b"new")
    assert [table.find(number) for number in numbers] == [b"\x00", None, b"\x02"]


def test_long_positions_are_bounded_by_their_bytes() -> None:
    table = Cursors(1)
    long = cursors.POSITION_BYTES_MAX // 4
    numbers = [table.keep(bytes((one,)) * long) for one in range(6)]
    assert len(table) == 4
    assert table.find(numbers[0]) is None
    assert table.find(numbers[-1]) is not None
    assert Cursors(1).keep(bytes(cursors.POSITION_BYTES_MAX + 1))
