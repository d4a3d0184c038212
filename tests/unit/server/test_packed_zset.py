"""Edits of packed sorted sets give the bytes that encoding the edited set anew gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.values import encode_zset, rank
from server.storage.packed_zset import edited, members_of, without_ranks

NAMES = st.one_of(st.binary(max_size=6), st.sampled_from([b"a", b"b", b"$1\r\na\r\n", b"\r\n$1\r\na\r\n", b"x" * 12]))
SCORES = st.one_of(st.floats(allow_nan=False), st.integers(-2, 2).map(float))
SETS = st.dictionaries(NAMES, SCORES, min_size=1, max_size=20)
EXPIRY = st.one_of(st.none(), st.integers(0, (1 << 63) - 1))


@given(members=SETS, expiry=EXPIRY, changes=st.dictionaries(NAMES, SCORES, max_size=12), data=st.data())
def test_an_edited_set_is_the_set_encoded_anew(
    members: dict[bytes, float], expiry: int | None, changes: dict[bytes, float], data: st.DataObject
) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(members)), max_size=len(members) - 1)) - changes.keys()
    left = {member: score for member, score in (members | changes).items() if member not in gone}
    made = edited(encode_zset(members.items(), expiry), {**dict.fromkeys(gone), **changes})
    assert made == encode_zset(left.items(), expiry)
    assert list(members_of(made).items()) == sorted(left.items(), key=rank)


@given(members=SETS, expiry=EXPIRY, data=st.data())
def test_ranks_are_cut_out(members: dict[bytes, float], expiry: int | None, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(members) - 1))
    end = data.draw(st.integers(first, len(members) - 1 if first == 0 else len(members)))
    ranked = sorted(members.items(), key=rank)
    assert without_ranks(encode_zset(members.items(), expiry), first, end) == encode_zset(ranked[:first] + ranked[end:], expiry)
