"""The error tree: every failure survives pickling, JSON and the wire of the admin commands, and is in the drawn tree."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.format import errors
from pipeline.format.admin import decode_refusal, encode_refusal
from pipeline.format.errors import LiveKeysError, NodeError, Outcome, RedkvError, SpecError, UsageError

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
FIELDS = st.dictionaries(st.text(min_size=1, max_size=8) | st.sampled_from(["message", "self"]), LEAVES, max_size=4)


def tree(root: type[RedkvError] = RedkvError) -> Iterator[type[RedkvError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree() if kind.__module__ == errors.__name__]


def same(one: RedkvError, other: RedkvError) -> bool:
    return (type(one), one.message, one.fields) == (type(other), other.message, other.fields)


@given(st.sampled_from(KINDS), st.text(), FIELDS)
def test_failures_survive_pickle_json_and_the_wire(kind: type[RedkvError], message: str, fields: dict[str, object]) -> None:
    failure = kind(message, **fields)
    assert str(failure) == message
    assert same(pickle.loads(pickle.dumps(failure)), failure)  # noqa: S301 -- our own bytes
    assert same(RedkvError.from_json(failure.to_json()), failure)
    text = encode_refusal(failure)
    assert "\r" not in text
    assert "\n" not in text
    assert same(decode_refusal(text), failure)


@given(st.text() | st.text().map("REDKV ".__add__) | st.text().map("REDKV NodeError ".__add__))
def test_any_other_refusal_is_a_node_error_with_its_text(text: str) -> None:
    refusal = decode_refusal(text)
    assert type(refusal) is NodeError
    assert text in refusal.message


@pytest.mark.parametrize("record", ["{}", "[]", "null", '{"error": "NodeError"}', '{"error": [], "message": "m"}', "{"])
def test_a_broken_refusal_is_a_node_error_with_its_text(record: str) -> None:
    text = f"REDKV NodeError {record}"
    assert same(decode_refusal(text), NodeError(f"the shard refused: {text}"))


def test_an_unknown_name_is_a_plain_failure() -> None:
    known = RedkvError.from_json({"error": "FromTheFutureError", "message": "m", "fields": {"a": 1}})
    assert same(known, RedkvError("m", a=1))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_shows_every_failure_below_its_parent(kind: type[RedkvError]) -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if "Error" in line and ("── " in line or line.strip() == "RedkvError")]
    names = [line.split("── ")[-1].split()[0] for line in lines]
    depth = lines[names.index(kind.__name__)].find(kind.__name__)
    assert depth == 4 * len(kind.__mro__[: kind.__mro__.index(RedkvError)]) + 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_failure_says_who_acts_and_what_the_command_line_returns(kind: type[RedkvError]) -> None:
    assert kind.acts
    assert isinstance(kind.outcome, Outcome)
    assert kind.exit_code == (2 if issubclass(kind, SpecError | UsageError) else 1)


def test_json_says_everything() -> None:
    assert LiveKeysError("m", prefix="p").to_json() == {
        "error": "LiveKeysError",
        "message": "m",
        "fields": {"prefix": "p"},
        "outcome": "fatal",
        "acts": "the operator: remove or rename these keys, or choose another prefix",
        "runbook": "docs/runbook.md#livekeyserror",
    }
