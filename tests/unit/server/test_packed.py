from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.values import bulk, canonical_reply, encode_hash, encode_zset, rank
from server.storage.packed import FIELDS_REMEMBERED_MAX, FieldFinder, PackedZset, count, hash_bulks

TRICKY = st.one_of(st.binary(max_size=6), st.sampled_from([b"a", b"$1\r\na\r\n", b"\r\n$1\r\na\r\n$1\r\na\r\n"]))
PAIRS = st.lists(st.tuples(TRICKY, TRICKY), min_size=1, max_size=12, unique_by=lambda pair: pair[0])
EXPIRY = st.one_of(st.none(), st.integers(0, (1 << 63) - 1))


@given(rows=st.lists(st.tuples(PAIRS, EXPIRY), min_size=1, max_size=4), asked=st.lists(TRICKY, max_size=4))
def test_fields_are_found_wherever_they_stood_in_the_row_before(
    rows: list[tuple[list[tuple[bytes, bytes]], int | None]], asked: list[bytes]
) -> None:
    finder = FieldFinder()
    for pairs, expiry in rows:
        raw = encode_hash(pairs, expiry)
        fields = [field for field, _ in pairs] + asked
        values = dict(pairs)
        assert finder.find(raw, fields) == [bulk(values[field]) if field in values else None for field in fields]


@given(pairs=PAIRS, expiry=EXPIRY)
def test_all_bulks_are_the_reply_after_its_header(pairs: list[tuple[bytes, bytes]], expiry: int | None) -> None:
    raw = encode_hash(pairs, expiry)
    number, bulks = hash_bulks(raw)
    assert number == count(raw) == len(pairs)
    assert canonical_reply(raw).endswith(bulks)
    assert len(canonical_reply(raw)) == len(bulks) + len(b"*%d\r\n" % (2 * number))


@given(
    members=st.lists(st.tuples(TRICKY, st.floats(allow_nan=False)), min_size=1, max_size=12, unique_by=lambda pair: pair[0]),
    expiry=EXPIRY,
    asked=st.lists(TRICKY, max_size=4),
)
def test_a_zset_view_reads_what_was_packed(members: list[tuple[bytes, float]], expiry: int | None, asked: list[bytes]) -> None:
    raw = encode_zset(members, expiry)
    ranked = sorted(members, key=rank)
    zset = PackedZset(raw)
    assert zset.count == count(raw) == len(members)
    assert [(zset.member(place), zset.score(place)) for place in range(zset.count)] == ranked
    assert zset.scores(0, zset.count) == tuple(score for _, score in ranked)
    assert zset.bulks(0, zset.count) == b"".join(bulk(member) for member, _ in ranked)
    names = [member for member, _ in ranked]
    for name in names + asked:
        assert zset.rank(name) == (names.index(name) if name in names else -1)


def test_the_memory_of_positions_is_bounded() -> None:
    finder = FieldFinder()
    for number in range(2 * FIELDS_REMEMBERED_MAX):
        field = b"f%d" % number
        assert finder.find(encode_hash([(field, b"v")]), [field]) == [bulk(b"v")]
    assert len(finder._remembered) <= FIELDS_REMEMBERED_MAX
