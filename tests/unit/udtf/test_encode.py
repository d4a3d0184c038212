"""The vectorised encoder against a plain model that uses nothing but the contract's own functions."""

from __future__ import annotations

import datetime as dt
import math
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.format.errors import CollectionTooLargeError, DataError, InvalidScoreError, KeyTooLongError, NullValueError
from pipeline.format.keys import meta_key, sortable_score
from pipeline.format.slots import key_slot
from pipeline.format.values import LZ4_BYTES_MIN, PACKED_BYTES_MAX, Flag, StringValue, decode_value, encode_hash, encode_string
from pipeline.shapes import TTL_SECONDS_MAX
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.template import Template
from tests.support.tables import documented_texts
from udtf.encode import Encoder, constant_slot
from udtf.rows import RowSchema
from udtf.source import value_columns

BUILT_AT_MS = 1_800_000_000_000
TEMPLATES = ("p:${id}", "{tag}_${id}", "{t:${shard(16)}}_${id}", "a${id}b${other}", "x${shard(3)}:${other}-${id}", "q{${id}}")


def spec_of(kind: str, key: str, on_null: str = "skip", **more: Any) -> DatasetSpec:
    document = {"dataset": "d", "source": {"table": "db.t"}, "key": key, "type": kind, "mode": "replace", "on_null": on_null, **more}
    return parse_spec(document, "a test's spec")


def encode(spec: DatasetSpec, columns: dict[str, pa.Array]) -> tuple[list[tuple[bytes, ...]], int]:
    """Internal key, element where there is one, and value of every row; and how many were skipped."""
    table = pa.RecordBatch.from_pydict(columns)
    result = Encoder(spec, value_columns(spec, table.schema.names), RowSchema(spec.has_elements), BUILT_AT_MS).encode(table)
    assert result.rows == table.num_rows
    rows = list(zip(*(column.to_pylist() for column in result.batch.columns), strict=True))
    assert len(rows) == table.num_rows - result.skipped
    return rows, result.skipped


def made(key: bytes, *rest: bytes) -> tuple[bytes, ...]:
    return meta_key(key), *rest


texts = st.text(st.characters(codec="utf-8"), max_size=12)
rows_of_text = st.lists(st.tuples(texts, texts, st.none() | texts, st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=30)


@settings(max_examples=150)
@given(rows_of_text, st.sampled_from(TEMPLATES))
def test_hashes_are_what_the_contract_says(rows: list[tuple[str, str, str | None, int | None]], key: str) -> None:
    names = ("id", "other", "name", "count")
    columns = {name: pa.array([row[at] for row in rows], pa.int64() if name == "count" else pa.string()) for at, name in enumerate(names)}
    spec = spec_of("hash", key, hash={"columns": ["name", "count"]})
    expected = []
    for row in rows:
        texts = {"id": row[0].encode(), "other": row[1].encode()}
        pairs = [(name, str(value).encode()) for name, value in ((b"name", row[2]), (b"count", row[3])) if value is not None]
        if pairs:
            expected.append(made(Template.parse(key).render(texts), encode_hash(pairs)))
    assert encode(spec, columns) == (expected, len(rows) - len(expected))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.none() | texts, st.none() | st.binary(max_size=20)), min_size=1, max_size=30), st.sampled_from(TEMPLATES[:3]))
def test_strings_are_the_bytes_of_their_column(rows: list[tuple[str | None, bytes | None]], key: str) -> None:
    columns = {"id": pa.array([row[0] for row in rows], pa.string()), "raw": pa.array([row[1] for row in rows], pa.binary())}
    expected = [
        made(Template.parse(key).render({"id": name.encode()}), encode_string(raw))
        for name, raw in rows
        if name is not None and raw is not None
    ]
    assert encode(spec_of("string", key, string={"column": "raw"}), columns) == (expected, len(rows) - len(expected))


@settings(max_examples=100)
@given(st.lists(st.tuples(texts, st.none() | st.floats(allow_nan=False)), min_size=1, max_size=30))
def test_members_carry_their_score(rows: list[tuple[str, float | None]]) -> None:
    columns = {
        "id": pa.array(["k"] * len(rows)),
        "name": pa.array([row[0] for row in rows]),
        "score": pa.array([row[1] for row in rows], pa.float64()),
    }
    expected = [made(b"z:k", f"m/{name}".encode(), sortable_score(score)) for name, score in rows if score is not None]
    spec = spec_of("zset", "z:${id}", zset={"member": "m/${name}", "score": "score"})
    assert encode(spec, columns) == (expected, len(rows) - len(expected))


GOLDEN = [
    (pa.array([7], pa.int8()), b"7"),
    (pa.array([-42], pa.int32()), b"-42"),
    (pa.array([-(2**63)], pa.int64()), b"-9223372036854775808"),
    (pa.array([0.1], pa.float64()), b"0.1"),
    (pa.array([3.0], pa.float64()), b"3"),
    (pa.array([9999999999.0], pa.float64()), b"9999999999"),
    (pa.array([1e10], pa.float64()), b"1e+10"),
    (pa.array([1e-6], pa.float64()), b"0.000001"),
    (pa.array([2.5e-7], pa.float64()), b"2.5e-7"),
    (pa.array([1e21], pa.float64()), b"1e+21"),
    (pa.array([-0.0], pa.float64()), b"-0"),
    (pa.array([math.inf], pa.float64()), b"inf"),
    (pa.array([math.nan], pa.float64()), b"nan"),
    (pa.array([0.1], pa.float32()), b"0.1"),
    (pa.array([True]), b"true"),
    (pa.array([Decimal("0.00000001"), Decimal("12.50000000")], pa.decimal128(20, 8))[:1], b"0.00000001"),
    (pa.array([Decimal("12.50000000")], pa.decimal128(20, 8)), b"12.50000000"),
    (pa.array(["grüß"]), "grüß".encode()),
    (pa.array([b"\x00\xff"]), b"\x00\xff"),
    (pa.array([dt.date(2026, 1, 31)]), b"2026-01-31"),
    (
        pa.array([dt.datetime(2026, 1, 31, 10, 0, tzinfo=dt.UTC)], pa.timestamp("us", "America/New_York")),
        b"2026-01-31T10:00:00Z",
    ),
    (pa.array([1_769_853_601_000_500], pa.timestamp("us")), b"2026-01-31T10:00:01.0005"),
    (pa.array([1_769_853_601_000_500], pa.timestamp("us", "Asia/Tokyo")), b"2026-01-31T10:00:01.0005Z"),
    (pa.array([1_769_853_600_000_000], pa.timestamp("us")), b"2026-01-31T10:00:00"),
]


@pytest.mark.parametrize(("column", "text"), GOLDEN)
def test_text_forms_stay_what_docs_types_md_says(column: pa.Array, text: bytes) -> None:
    rows, _ = encode(spec_of("hash", "p:${id}"), {"id": pa.array(["1"]), "x": column})
    assert rows == [made(b"p:1", encode_hash([(b"x", text)]))]


def test_every_example_of_docs_types_md_is_golden() -> None:
    """But of CHAR and nested types, which Spark makes texts of: an integration test has those."""
    documented = documented_texts()
    assert len(documented) > 8
    texts = [text for kind, examples in documented.items() if kind not in ("CHAR", "ARRAY") for text in examples]
    assert set(texts) <= {text for _, text in GOLDEN}


@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.date32()])
def test_a_moment_that_has_no_text_form_is_refused(kind: pa.DataType) -> None:
    column = pa.array([0, 2**62 if pa.types.is_timestamp(kind) else 2**30], kind)
    with pytest.raises(DataError, match="beyond the years that have a text form"):
        encode(spec_of("hash", "p:${id}"), {"id": pa.array(["1", "2"]), "x": column})


def test_a_hash_beyond_the_packed_limit_is_refused_by_name() -> None:
    columns = {"id": pa.array(["1", "big"]), "x": pa.array(["a", "x" * PACKED_BYTES_MAX])}
    with pytest.raises(CollectionTooLargeError, match="hash p:big has"):
        encode(spec_of("hash", "p:${id}"), columns)


def test_a_double_reads_back_as_the_same_double() -> None:
    @settings(max_examples=300)
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def check(number: float) -> None:
        rows, _ = encode(spec_of("string", "p:${id}", string={"column": "x"}), {"id": pa.array(["1"]), "x": pa.array([number])})
        assert float(rows[0][1][2:]) == number

    check()


def test_null_is_refused_by_name_unless_the_spec_skips_it() -> None:
    columns = {"id": pa.array(["1", "2"]), "score": pa.array([1.0, None]), "name": pa.array(["a", "b"])}
    with pytest.raises(NullValueError, match=r"NULL in column score of the row \{'id': '2', 'score': None\}") as refused:
        encode(spec_of("zset", "z:${id}", "fail", zset={"member": "${name}", "score": "score"}), columns)
    assert refused.value.fields["columns"] == ["score"]
    with pytest.raises(NullValueError, match="NULL in column name"):
        encode(
            spec_of("hash", "p:${id}", "fail", hash={"columns": ["name"]}), {"id": pa.array(["1"]), "name": pa.array([None], pa.string())}
        )


def test_a_null_beside_a_date_that_python_does_not_know_is_refused_by_name() -> None:
    columns = {"day": pa.array([10**6 * 5], pa.int32()).cast(pa.date32()), "score": pa.array([None], pa.float64()), "name": pa.array(["a"])}
    spec = spec_of("zset", "z:${day}", "fail", zset={"member": "${name}", "score": "score"})
    with pytest.raises(NullValueError, match=r"column score of the row \{'day': '15659-07-15', 'score': None\}"):
        encode(spec, columns)
    with pytest.raises(InvalidScoreError, match=r"of the row \{'day': '15659-07-15'\}"):
        encode(spec, columns | {"score": pa.array([math.nan])})


def test_nan_has_no_rank() -> None:
    columns = {"id": pa.array(["1"]), "score": pa.array([math.nan]), "name": pa.array(["a"])}
    with pytest.raises(InvalidScoreError, match="column score of the row"):
        encode(spec_of("zset", "z:${id}", zset={"member": "${name}", "score": "score"}), columns)


def test_a_decimal_score_is_a_number() -> None:
    columns = {"id": pa.array(["1"]), "score": pa.array([Decimal("12.50")]), "name": pa.array(["a"])}
    rows, _ = encode(spec_of("zset", "z:${id}", zset={"member": "${name}", "score": "score"}), columns)
    assert rows == [made(b"z:1", b"a", sortable_score(float(Decimal("12.50"))))]


def test_an_absurd_key_is_refused() -> None:
    with pytest.raises(KeyTooLongError, match="65536"):
        encode(spec_of("hash", "p:${id}"), {"id": pa.array(["x" * 70_000]), "name": pa.array(["a"])})


@pytest.mark.parametrize(
    ("kind", "shape", "what"),
    [("hash", {"field": "${name}", "value": "x"}, "field"), ("zset", {"member": "${name}", "score": "x"}, "member")],
)
def test_an_absurd_field_or_member_is_refused_by_its_key(kind: str, shape: dict[str, str], what: str) -> None:
    more: dict[str, Any] = {kind: shape}
    spec = spec_of(kind, "p:${id}", **more)
    columns = {"id": pa.array(["1", "2"]), "name": pa.array(["a", "y" * (1 << 16)]), "x": pa.array([1, 2])}
    rows, _ = encode(spec, columns)
    assert len(rows[1][1]) == 1 << 16
    columns["name"] = pa.array(["a", "y" * ((1 << 16) + 1)])
    with pytest.raises(KeyTooLongError, match=rf"the {what} b'y+'\.\.\. of the key p:2 has 65537 bytes, the limit is 65536"):
        encode(spec, columns)


@pytest.mark.parametrize(
    ("key", "tag"), [("{plane}_${id}", b"plane"), ("a{b}c${id}", b"b"), ("a{}${id}", None), ("{a${id}}", None), ("a:${id}", None)]
)
def test_a_literal_hash_tag_gives_one_slot(key: str, tag: bytes | None) -> None:
    assert constant_slot(Template.parse(key)) == (None if tag is None else key_slot(tag))


def test_a_constant_time_to_live_counts_from_the_build() -> None:
    rows, _ = encode(spec_of("hash", "p:${id}", ttl={"seconds": 60}), {"id": pa.array(["1"]), "x": pa.array(["a"])})
    assert rows == [made(b"p:1", encode_hash([(b"x", b"a")], BUILT_AT_MS + 60_000))]


def test_the_longest_time_to_live_fits_into_a_value() -> None:
    rows, _ = encode(spec_of("hash", "p:${id}", ttl={"seconds": TTL_SECONDS_MAX}), {"id": pa.array(["1"]), "x": pa.array(["a"])})
    assert rows == [made(b"p:1", encode_hash([(b"x", b"a")], BUILT_AT_MS + TTL_SECONDS_MAX * 1000))]


def test_a_moment_before_1970_has_passed() -> None:
    columns = {
        "id": pa.array(["1"]),
        "x": pa.array(["a"]),
        "until": pa.array([dt.datetime(1900, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
    }
    rows, _ = encode(spec_of("string", "p:${id}", string={"column": "x"}, ttl={"at": "until"}), columns)
    assert rows == [made(b"p:1", encode_string(b"a", 0))]


def test_a_rows_own_moment_is_its_expiry_and_null_means_never() -> None:
    moment = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    columns = {"id": pa.array(["1", "2"]), "x": pa.array(["a", "b"]), "until": pa.array([moment, None], pa.timestamp("us", "Asia/Tokyo"))}
    rows, _ = encode(spec_of("string", "p:${id}", string={"column": "x"}, ttl={"at": "until"}), columns)
    assert rows == [made(b"p:1", encode_string(b"a", int(moment.timestamp() * 1000))), made(b"p:2", encode_string(b"b"))]
    rows, _ = encode(spec_of("hash", "p:${id}", ttl={"at": "until"}), columns)
    assert rows[0] == made(b"p:1", encode_hash([(b"x", b"a")], int(moment.timestamp() * 1000)))


def test_fields_can_be_renamed() -> None:
    columns = {"id": pa.array(["1"]), "a": pa.array(["x"]), "b": pa.array([2])}
    rows, _ = encode(spec_of("hash", "p:${id}", hash={"columns": {"second": "b", "first": "a"}}), columns)
    assert rows == [made(b"p:1", encode_hash([(b"second", b"2"), (b"first", b"x")]))]


def test_a_field_of_every_row_and_a_null_value_marks_it_whatever_the_rule() -> None:
    columns = {"id": pa.array(["1", "1", "2"]), "name": pa.array(["a", "b", "c"]), "x": pa.array([7, None, 9])}
    spec = spec_of("hash", "p:${id}", "fail", hash={"field": "f/${name}", "value": "x"})
    assert encode(spec, columns) == ([made(b"p:1", b"f/a", b"7"), (meta_key(b"p:1"), b"f/b", None), made(b"p:2", b"f/c", b"9")], 0)


def test_a_marked_row_keeps_its_key_and_needs_no_value() -> None:
    columns = {"id": pa.array(["1", "2", "3"]), "x": pa.array(["a", None, "c"]), "gone": pa.array([False, True, None])}
    rows, skipped = encode(spec_of("string", "p:${id}", "fail", string={"column": "x"}, delete_if="gone"), columns)
    assert (rows, skipped) == ([made(b"p:1", encode_string(b"a")), (meta_key(b"p:2"), None), made(b"p:3", encode_string(b"c"))], 0)
    columns = {"id": pa.array(["1", "2"]), "m": pa.array(["a", "b"]), "s": pa.array([1.5, None]), "gone": pa.array([False, True])}
    rows, _ = encode(spec_of("zset", "z:${id}", "fail", zset={"member": "${m}", "score": "s"}, delete_if="gone"), columns)
    assert rows == [made(b"z:1", b"a", sortable_score(1.5)), (meta_key(b"z:2"), b"b", None)]


def test_seconds_of_a_column_count_from_the_build_and_null_means_never() -> None:
    columns = {"id": pa.array(["1", "2", "3", "4"]), "x": pa.array(["a"] * 4), "left": pa.array([60, None, -5, 2**62])}
    rows, _ = encode(spec_of("string", "p:${id}", string={"column": "x"}, ttl={"seconds_from": "left"}), columns)
    expiries = [decode_value(value).expiry_ms for _, value in rows]
    assert expiries == [BUILT_AT_MS + 60_000, None, BUILT_AT_MS, BUILT_AT_MS + (1 << 42) * 1000]


@pytest.mark.parametrize("ttl", [None, {"seconds": 60}])
def test_large_strings_are_compressed_where_it_helps(ttl: dict[str, int] | None) -> None:
    noise = random.Random(1).randbytes(LZ4_BYTES_MIN)
    texts = [b"x" * (LZ4_BYTES_MIN - 1), b"x" * LZ4_BYTES_MIN, noise, b"long " * 10_000]
    columns = {"id": pa.array(["1", "2", "3", "4"]), "x": pa.array(texts, pa.binary())}
    rows, _ = encode(spec_of("string", "p:${id}", string={"column": "x"}, lz4=True, ttl=ttl), columns)
    expiry = BUILT_AT_MS + 60_000 if ttl else None
    assert [decode_value(value) for _, value in rows] == [StringValue(text, expiry) for text in texts]
    assert [bool(value[1] & Flag.LZ4) for _, value in rows] == [False, True, False, True]
    assert len(rows[3][1]) < 1000
