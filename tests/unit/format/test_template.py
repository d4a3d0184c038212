"""Templates: rendering against a plain model, the shard function that clients compute, errors that say what to write."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.errors import TemplateError
from pipeline.format.slots import hash_tag
from pipeline.template import SHARDS_MAX, Template, shard_number

NAMES = st.text(alphabet="abcxyz_ 09é", min_size=1, max_size=6).filter(lambda name: not name.isspace())
LITERALS = st.text(alphabet="ab:_{}$", min_size=1, max_size=5).filter(lambda text: "${" not in text and not text.endswith("$"))
TEXTS = st.binary(max_size=8)


@given(st.lists(st.tuples(LITERALS, NAMES), min_size=1, max_size=4), TEXTS, st.data())
def test_render_is_replacement(parts: list[tuple[str, str]], tail: bytes, data: st.DataObject) -> None:
    source = "".join(f"{literal}${{{name}}}" for literal, name in parts)
    values = {name: data.draw(TEXTS) for _, name in parts}
    template = Template.parse(source)
    assert template.render(values | {"unused": tail}) == b"".join(literal.encode() + values[name] for literal, name in parts)
    assert template.columns == tuple(name for _, name in parts)
    assert template.prefix == parts[0][0]


@given(st.text(alphabet="${}shard()1a", max_size=20))
def test_any_text_parses_or_is_a_template_error(source: str) -> None:
    try:
        template = Template.parse(source)
    except TemplateError:
        return
    assert template.columns


def test_braces_stay_what_they_are_to_redis() -> None:
    key = Template.parse("{person}_${id}").render({"id": b"42"})
    assert key == b"{person}_42"
    assert hash_tag(key) == b"person"


def test_a_client_computes_the_shard_from_the_documentation() -> None:
    template = Template.parse("{person:${shard(16)}}_${id}")
    assert template.prefix == "{person:"
    assert template.render({"id": b"42"}) == b"{person:%d}_42" % (1 + crc32(b"42") % 16) == b"{person:9}_42"


@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, SHARDS_MAX))
def test_shard_numbers_are_in_range(texts: list[bytes], count: int) -> None:
    assert 1 <= shard_number(texts, count) <= count
    assert shard_number(texts, 1) == 1


def test_columns_of_a_shard_are_told_apart() -> None:
    assert shard_number([b"a", b"bc"], SHARDS_MAX) != shard_number([b"ab", b"c"], SHARDS_MAX)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("person", "uses no column"),
        ("person:${shard(16)}", "uses no column"),
        ("person:${id", "without closing"),
        ("person:${}", "write \\${column}"),
        ("person:${shard(0)}${id}", "from 1 to 16384"),
        ("person:${shard(16385)}${id}", "from 1 to 16384"),
        ("person:${shard(99999999999)}${id}", "write \\${column} or \\${shard"),
        ("person:${shard(x)}${id}", "write \\${column} or \\${shard"),
        ("person:${upper(name)}", "write \\${column} or \\${shard"),
        ("person:${a{b}", "without closing"),
    ],
)
def test_errors_say_what_to_write(source: str, advice: str) -> None:
    with pytest.raises(TemplateError, match=advice):
        Template.parse(source)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(TemplateError, match="needs a value for id, day"):
        Template.parse("p:${id}:${day}").render({"other": b""})
