"""The dataset spec: what one YAML file says about one dataset.

Rules:
- The model is frozen; whatever can be known without the table is checked here, whatever needs it in `udtf.source`.
- An error names the file, the field, and what to write instead; all errors of a file come in one message.

Example::

    dataset: person
    source:
      table: features.person
      where: ds = '${date}'
    key: "{person}_${id}"
    type: hash
    hash:
      columns: [name, quantity, price]
    mode: replace
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from pipeline.format.errors import SpecError
from pipeline.format.records import DATASET_NAME, VERSION_ID, Mode
from pipeline.shapes import HashShape, LastBy, OnDuplicate, Part, StringShape, Ttl, ZsetShape, checked_template
from pipeline.template import Template

DATE_PLACEHOLDER = "${date}"  # in `source.where`: the version id without the number of a rebuild

_TABLE = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")


def _key_template(source: str) -> str:
    if not Template.parse(checked_template(source)).prefix:
        raise ValueError(
            f"key {source!r} starts with a column, so the dataset would have no prefix of its own: write e.g. 'person:{source}'"
        )
    return source


class Source(Part):
    """Where the rows come from: a Hive table, and a filter on its partitions in Spark SQL."""

    table: str
    where: str | None = None

    @field_validator("table")
    @classmethod
    def _check_table(cls, table: str) -> str:
        if not _TABLE.fullmatch(table):
            raise ValueError(f"{table!r} is no Hive table name: write database.table")
        return table

    def filter_for(self, version: str) -> str | None:
        """The filter for one version, its `${date}` replaced."""
        return self.where and self.where.replace(DATE_PLACEHOLDER, version.partition(".")[0])


class Changes(Source):
    """A table of changes: rows that are new or different since the version that a delta lies on, and keys that went, which `delete_if` (a
    BOOLEAN column, by default the spec's) marks.
    """

    delete_if: str | None = None


class DatasetSpec(Part):
    """One dataset: see the module's example.

    `on_null` rules NULL in a key part, field name, member, score or string value; `on_duplicate` rules several rows for one key (or one
    element of a key); rows that `delete_if` (a BOOLEAN column) marks are not stored, and in mode `upsert` delete a key that has no
    others; `changes` is where a delta finds what changed: without it, its rows are compared with what it lies on; `lz4` compresses
    large strings; `allow_empty` lets a version without a row be built; `deadline_minutes` after its build, a version shall be ready on
    all nodes.
    """

    dataset: str
    source: Source
    key: Annotated[str, AfterValidator(_key_template)]
    type: Literal["string", "hash", "zset"]
    hash: HashShape | None = None
    string: StringShape | None = None
    zset: ZsetShape | None = None
    mode: Mode
    on_null: Literal["fail", "skip"] = "fail"
    on_duplicate: OnDuplicate = "fail"
    delete_if: str | None = None
    changes: Changes | None = None
    lz4: bool = False
    allow_empty: bool = False
    deadline_minutes: Annotated[int, Field(ge=1)] | None = None
    ttl: Ttl | None = None

    @field_validator("dataset")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not DATASET_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no dataset name: write 1 to 64 of a-z, 0-9, '_' and '-', a letter first")
        return name

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        given = {name for name in ("string", "hash", "zset") if getattr(self, name) is not None}
        if given - {self.type}:
            raise ValueError(f"type is {self.type}, so remove the section {', '.join(sorted(given - {self.type}))}")
        if self.type != "hash" and not given:
            example = {"string": "string: {column: name}", "zset": 'zset: {member: "${id}", score: points}'}[self.type]
            raise ValueError(f"type {self.type} needs a section, e.g. {example}")
        if self.has_elements and self.ttl and self.ttl.column:
            message = "gives every row a moment of its own, but one key has many rows here: write ttl: {seconds: 86400}"
            raise ValueError(f"ttl.{'at' if self.ttl.at else 'seconds_from'} {message}")
        if self.changes and self.mode != "replace":
            raise ValueError("changes are for deltas of mode replace; of an upsert, source has the changes: remove the section")
        if self.lz4 and self.type != "string":
            raise ValueError(f"lz4 compresses large strings, but type is {self.type}: remove it")
        return self

    def of_changes(self) -> Self:
        """The spec of a delta that a table of changes makes: that table in the place of the source."""
        if self.changes is None:
            return self
        source = Source(table=self.changes.table, where=self.changes.where)
        return self.model_copy(update={"source": source, "delete_if": self.changes.delete_if or self.delete_if})

    @property
    def has_elements(self) -> bool:
        """Whether many rows make one key: a sorted set, or a hash of field and value."""
        return self.zset is not None or (self.hash is not None and self.hash.field is not None)

    @property
    def element(self) -> str | None:
        """The template of a row's element: a sorted set's member, or the field of a hash of many rows."""
        if self.zset:
            return self.zset.member
        return self.hash.field if self.hash else None

    @property
    def last_by(self) -> str | None:
        """The column of which the largest value stands among several rows for the same."""
        return self.on_duplicate.last_by if isinstance(self.on_duplicate, LastBy) else None

    @property
    def rule_columns(self) -> tuple[str, ...]:
        """The columns that rule a row and are no part of its value, unless the spec names them there."""
        named = (self.ttl.column if self.ttl else None, self.last_by, self.delete_if)
        return tuple(name for name in named if name)

    @property
    def key_template(self) -> Template:
        """The parsed key template."""
        return Template.parse(self.key)

    @property
    def prefix(self) -> str:
        """The literal prefix that this dataset owns."""
        return self.key_template.prefix

    @property
    def named_columns(self) -> tuple[str, ...]:
        """All columns that the spec names, each once."""
        names = list(self.key_template.columns)
        if self.element:
            names += Template.parse(self.element).columns
        if self.hash:
            names += (self.hash.named or {}).values()
            names += [self.hash.value] if self.hash.value else []
        if self.string:
            names += self.string.names
        if self.zset:
            names.append(self.zset.score)
        return tuple(dict.fromkeys([*names, *self.rule_columns]))


def parse_spec(document: Any, where: str) -> DatasetSpec:
    """A spec from parsed YAML; `where` names the source in errors.

    Raises:
        SpecError: anything is wrong with it.
    """
    if not isinstance(document, dict):
        raise SpecError(f"{where}: a dataset spec is a YAML mapping with dataset, source, key, type and mode", where=where)
    try:
        return DatasetSpec.model_validate(document)
    except ValidationError as wrong:
        lines = [_explain(error) for error in wrong.errors()]
        raise SpecError(f"{where}: " + "; ".join(lines), where=where, errors=lines) from wrong


def load_spec(path: Path) -> DatasetSpec:
    """Read a spec file.

    Raises:
        SpecError: it can't be read, is not YAML, or is no spec.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as unreadable:
        raise SpecError(f"{path}: can't be read: {unreadable}", where=str(path)) from unreadable
    except yaml.YAMLError as broken:
        raise SpecError(f"{path}: is not YAML: {broken}", where=str(path)) from broken
    return parse_spec(document, str(path))


def check_version(version: str) -> str:
    """A version id, checked.

    Raises:
        SpecError: it breaks the grammar.
    """
    if not VERSION_ID.fullmatch(version):
        message = f"version {version!r} is no version id: write a date as 2026-11-22, 2026-11-22T06 for an hour, 2026-11-22.2 for a rebuild"
        raise SpecError(message, version=version)
    return version


def _explain(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    value = error["input"]
    match error["type"]:
        case "missing":
            return f"field {field} is missing"
        case "extra_forbidden":
            return f"field {field} is unknown: remove it, or check its spelling"
        case "literal_error" if field == "mode":
            return f"field mode is {value!r}: write replace (a version stands for the whole dataset) or upsert (rows enter the live keys)"
        case "literal_error":
            return f"field {field} is {value!r}: write {error['ctx']['expected']}"
        case "value_error":
            reason = error["msg"].removeprefix("Value error, ")
            return f"field {field}: {reason}" if field else reason
        case _:
            return f"field {field} is {value!r}: {error['msg']}"
