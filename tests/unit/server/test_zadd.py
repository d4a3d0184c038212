"""What ZADD makes of a set, beyond what the oracle shows: when a packed set has to become big."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from server.commands.zadd import Outcome, Room, outcome_of, parse_add

PAIRS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"dd", b"eee"]), st.integers(-2, 2).map(float)), min_size=1, max_size=8)


def made(pairs: list[tuple[bytes, float]], current: dict[bytes, float], room: Room | None) -> Outcome:
    options, _ = parse_add([b"ZADD", b"k", b"1", b"a"])
    return outcome_of(options, pairs, current, room)


@given(pairs=PAIRS, current=st.dictionaries(st.sampled_from([b"a", b"b", b"f"]), st.just(1.0)), members=st.integers(0, 4))
def test_a_set_stays_packed_as_long_as_all_new_members_have_room(
    pairs: list[tuple[bytes, float]], current: dict[bytes, float], members: int
) -> None:
    new = {member for member, _ in pairs} - current.keys()
    outcome = made(pairs, current, Room(members, 2))
    assert outcome.added == len(new)
    assert outcome.packed == (len(new) <= members and all(len(member) <= 2 for member in new))
    assert current | outcome.changes == current | dict(pairs)
    assert not made(pairs, current, None).packed


def test_negative_zero_is_zero_up_to_the_member_for_which_there_is_no_room() -> None:
    changes = made([(b"a", -0.0), (b"b", -0.0), (b"c", -0.0)], {}, Room(1, 9)).changes
    assert [math.copysign(1, changes[member]) for member in (b"a", b"b", b"c")] == [1, -1, -1]
