"""Dataset specs: what they derive, and that an error names file, field and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.format.errors import SpecError
from pipeline.spec import DatasetSpec, check_version, load_spec, parse_spec

PERSON: dict[str, Any] = {
    "dataset": "person",
    "source": {"table": "features.person", "where": "ds = '${date}'"},
    "key": "{person}_${id}",
    "type": "hash",
    "hash": {"columns": ["name", "price"]},
    "mode": "replace",
}
ROUTE: dict[str, Any] = PERSON | {
    "type": "zset",
    "key": "route:${origin}-${dest}",
    "zset": {"member": "${day}/${flight}", "score": "delay"},
    "on_null": "skip",
}
del ROUTE["hash"]


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def test_a_spec_knows_its_prefix_and_columns() -> None:
    person, route = parse_spec(PERSON, "p"), parse_spec(ROUTE, "r")
    assert person.prefix == "{person}_"
    assert person.named_columns == ("id", "name", "price")
    assert person.on_null == "fail"
    assert route.prefix == "route:"
    assert route.named_columns == ("origin", "dest", "day", "flight", "delay")


def test_the_default_hash_names_only_the_columns_of_its_key() -> None:
    assert parse_spec(without(PERSON, "hash"), "p").named_columns == ("id",)


def test_the_date_of_a_rebuild_is_that_of_its_version() -> None:
    source = parse_spec(PERSON, "p").source
    assert source.filter_for("2026-11-22") == source.filter_for("2026-11-22.2") == "ds = '2026-11-22'"
    assert source.model_copy(update={"where": None}).filter_for("2026-11-22") is None


def test_a_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "person.yaml"
    path.write_text(yaml.safe_dump(PERSON), encoding="utf-8")
    spec = load_spec(path)
    assert spec == parse_spec(PERSON, "p")
    assert DatasetSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (without(PERSON, "key"), "field key is missing"),
        (PERSON | {"keys": "x"}, "field keys is unknown: remove it, or check its spelling"),
        (PERSON | {"mode": "merge"}, "field mode is 'merge': write replace "),
        (PERSON | {"type": "list"}, "field type is 'list': write 'string', 'hash' or 'zset'"),
        (PERSON | {"key": "${id}"}, "field key: key '${id}' starts with a column.*write e.g. 'person:"),
        (PERSON | {"key": "person"}, "field key: template 'person' uses no column"),
        (PERSON | {"key": 5}, "field key is 5"),
        (PERSON | {"dataset": "Person"}, "field dataset: 'Person' is no dataset name: write 1 to 64"),
        (PERSON | {"source": {"table": "person"}}, "field source.table: 'person' is no Hive table name: write database.table"),
        (PERSON | {"source": {"tables": "a.b"}}, "field source.table is missing.*field source.tables is unknown"),
        (PERSON | {"hash": {"columns": []}}, "field hash.columns"),
        (PERSON | {"hash": {"columns": ["a", "b", "a"]}}, "field hash.columns: a stands there twice"),
        (PERSON | {"type": "string"}, "type is string, so remove the section hash"),
        (without(PERSON, "hash") | {"type": "string"}, "type string needs a section, e.g. string: {column: name}"),
        (without(ROUTE, "zset"), "type zset needs a section, e.g. zset: {member:"),
        (ROUTE | {"zset": {"member": "m", "score": "s"}}, "field zset.member: template 'm' uses no column"),
        (["person"], "is a YAML mapping"),
        (None, "is a YAML mapping"),
    ],
)
def test_an_error_names_the_file_the_field_and_what_to_write(document: Any, message: str) -> None:
    pattern = ".*".join(_literal(part) for part in message.split(".*"))
    with pytest.raises(SpecError, match=rf"^specs/person\.yaml: .*{pattern}") as refused:
        parse_spec(document, "specs/person.yaml")
    assert refused.value.exit_code == 2


def _literal(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "${}.()" else letter for letter in text)


def test_all_errors_come_in_one_message() -> None:
    with pytest.raises(SpecError, match=r"field key is missing; .*field mode is missing"):
        parse_spec(without(PERSON, "key", "mode"), "p")


@pytest.mark.parametrize(
    ("content", "message"), [(b"a: [", "is not YAML"), (b"\xff", "can't be read"), (None, "can't be read"), (b"", "is a YAML mapping")]
)
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as refused:
        load_spec(path)
    assert str(path) in refused.value.message


def test_a_version_id_is_checked() -> None:
    assert check_version("2026-11-22.2") == "2026-11-22.2"
    with pytest.raises(SpecError, match="'latest' is no version id: write a date as 2026-11-22"):
        check_version("latest")


CHANGES = {"table": "features.changes", "where": "ds = '${date}'", "delete_if": "gone"}


def test_a_table_of_changes_stands_in_for_the_source() -> None:
    spec = parse_spec({**PERSON, "changes": CHANGES}, "p")
    changes = spec.of_changes()
    assert (changes.source.table, changes.source.filter_for("2026-11-22.2")) == ("features.changes", "ds = '2026-11-22'")
    assert (changes.delete_if, spec.delete_if) == ("gone", None)
    assert "gone" in changes.named_columns
    assert "gone" not in spec.named_columns
    assert parse_spec(spec.model_dump(mode="json", exclude_none=True), "p") == spec


def test_of_changes_the_specs_own_rule_deletes_unless_they_have_one() -> None:
    without_rule = {name: value for name, value in CHANGES.items() if name != "delete_if"}
    assert parse_spec({**PERSON, "delete_if": "dead", "changes": without_rule}, "p").of_changes().delete_if == "dead"
    plain = parse_spec(PERSON, "p")
    assert plain.of_changes() is plain


def test_an_upsert_has_no_table_of_changes() -> None:
    with pytest.raises(SpecError, match="changes are for deltas of mode replace"):
        parse_spec({**PERSON, "mode": "upsert", "changes": CHANGES}, "p")
