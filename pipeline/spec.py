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
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.format.errors import SpecError, TemplateError
from pipeline.format.records import DATASET_NAME, VERSION_ID
from pipeline.template import Template

DATE_PLACEHOLDER = "${date}"  # in `source.where`: the version id without the number of a rebuild

_TABLE = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")


def _template(source: str) -> str:
    try:
        Template.parse(source)
    except TemplateError as wrong:
        raise ValueError(wrong.message) from wrong
    return source


def _key_template(source: str) -> str:
    if not Template.parse(_template(source)).prefix:
        raise ValueError(
            f"key {source!r} starts with a column, so the dataset would have no prefix of its own: write e.g. 'person:{source}'"
        )
    return source


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
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


class HashShape(_Part):
    """A hash of one row: one field per column; by default all columns but those of the key and of `ttl.at`."""

    columns: tuple[str, ...] | None = Field(default=None, min_length=1)

    @field_validator("columns")
    @classmethod
    def _check_unique(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = sorted({name for name in columns or () if columns and columns.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there twice: name each column once")
        return columns


class StringShape(_Part):
    """A string of one row: the text form of one column, or several columns as one JSON object."""

    column: str | None = None
    columns: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.column is None) == (self.columns is None):
            raise ValueError("write either column: name, for its text, or columns: [a, b], for a JSON object of them")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns used."""
        return self.columns or (self.column or "",)


class ZsetShape(_Part):
    """A sorted set of many rows: member (a template) and score (a numeric column)."""

    member: Annotated[str, AfterValidator(_template)]
    score: str


class Ttl(_Part):
    """When keys expire: so many seconds after the build (the manifest's `built_at_ms`), or at the moment that a TIMESTAMP column holds.

    A NULL in that column means never.
    """

    seconds: int | None = Field(default=None, ge=1)
    at: str | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.seconds is None) == (self.at is None):
            raise ValueError("write either seconds: 86400, counted from the build, or at: column, for a TIMESTAMP column")
        return self


class DatasetSpec(_Part):
    """One dataset: see the module's example.

    `on_null` rules NULL in a key part, member, score or string value; `allow_empty` lets a version without a row be built.
    """

    dataset: str
    source: Source
    key: Annotated[str, AfterValidator(_key_template)]
    type: Literal["string", "hash", "zset"]
    hash: HashShape | None = None
    string: StringShape | None = None
    zset: ZsetShape | None = None
    mode: Literal["replace"]
    on_null: Literal["fail", "skip"] = "fail"
    allow_empty: bool = False
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
        if self.zset and self.ttl and self.ttl.at:
            raise ValueError("ttl.at gives every row a moment of its own, but a sorted set has many rows: write ttl: {seconds: 86400}")
        return self

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
        if self.hash and self.hash.columns:
            names += self.hash.columns
        if self.string:
            names += self.string.names
        if self.zset:
            names += [*Template.parse(self.zset.member).columns, self.zset.score]
        if self.ttl and self.ttl.at:
            names.append(self.ttl.at)
        return tuple(dict.fromkeys(names))


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
            return f"field mode is {value!r}: write replace, the only mode there is"
        case "literal_error":
            return f"field {field} is {value!r}: write {error['ctx']['expected']}"
        case "value_error":
            reason = error["msg"].removeprefix("Value error, ")
            return f"field {field}: {reason}" if field else reason
        case _:
            return f"field {field} is {value!r}: {error['msg']}"
