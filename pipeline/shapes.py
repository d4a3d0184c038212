"""The parts of a dataset spec that say what rows become: shapes of values, expiry, and the rule for duplicates.

Rules:
- Every part is frozen and checks itself; a message says what to write instead.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.format.errors import TemplateError
from pipeline.format.keys import ELEMENT_BYTES_MAX
from pipeline.template import Template

TTL_SECONDS_MAX = 1 << 42  # 139,000 years; in milliseconds since the epoch still far from where signed 64 bits end


def checked_template(source: str) -> str:
    """A template, as a validator of pydantic checks it."""
    try:
        Template.parse(source)
    except TemplateError as wrong:
        raise ValueError(wrong.message) from wrong
    return source


def _check_fields(columns: object) -> object:
    """Said in one sentence: of a union, pydantic tells every member's complaint."""
    if isinstance(columns, list | tuple):
        twice = sorted({str(name) for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there twice: name each column once")
    elif not isinstance(columns, dict | None):
        message = f"{columns!r} is no list of columns and no mapping: write [name, price] or {{field: column}}"
        raise ValueError(message)  # noqa: TRY004 -- pydantic makes no message of a TypeError
    if columns is None:
        return columns
    names = [*columns, *columns.values()] if isinstance(columns, dict) else list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{columns!r} must name at least one column, as text: write [name, price] or {{field: column}}")
    longest = max(columns, key=lambda field: len(field.encode()))
    if len(longest.encode()) > ELEMENT_BYTES_MAX:
        raise ValueError(f"the field {longest[:64]!r}... has {len(longest.encode())} bytes, the limit is {ELEMENT_BYTES_MAX}")
    return columns


class Part(BaseModel):
    """A frozen part of a spec; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HashShape(Part):
    """A hash of one row, a field per column; or of many rows, a field per row.

    `columns` names the fields of one row: a list, or a mapping of field to column; by default all columns but those of the key, of
    `ttl` and of the rules. `field` (a template) and `value` (a column) make a field of every row.
    """

    columns: Annotated[tuple[str, ...] | dict[str, str] | None, BeforeValidator(_check_fields)] = None
    field: Annotated[str, AfterValidator(checked_template)] | None = None
    value: str | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.field is None) != (self.value is None):
            raise ValueError('a hash of many rows needs both: field: "${name}", for the template of a row\'s field, and value: column')
        if self.field is not None and self.columns is not None:
            raise ValueError("write either columns, for a hash of one row, or field and value, for a hash of many rows")
        return self

    @property
    def named(self) -> dict[str, str] | None:
        """The column of every field that `columns` names."""
        return self.columns if isinstance(self.columns, dict) else {name: name for name in self.columns} if self.columns else None


class StringShape(Part):
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


class ZsetShape(Part):
    """A sorted set of many rows: member (a template) and score (a numeric column)."""

    member: Annotated[str, AfterValidator(checked_template)]
    score: str


class Ttl(Part):
    """When keys expire: so many seconds after the build (the manifest's `built_at_ms`), for all keys or by a numeric column; or at the
    moment that a TIMESTAMP column holds.

    A NULL in the column means never.
    """

    seconds: int | None = Field(default=None, ge=1, le=TTL_SECONDS_MAX)
    seconds_from: str | None = None
    at: str | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(one is not None for one in (self.seconds, self.seconds_from, self.at)) != 1:
            raise ValueError(
                "write one of seconds: 86400, counted from the build; seconds_from: column, a number of them per row; "
                "at: column, for a TIMESTAMP column"
            )
        return self

    @property
    def column(self) -> str | None:
        """The column that gives every row a moment of its own."""
        return self.at or self.seconds_from


class LastBy(Part):
    """Of several rows for one key (or one element of a key) the one that is largest in this column stands; the others are counted."""

    last_by: str


def _check_rule(rule: object) -> object:
    """As for `_check_fields`."""
    by = rule.get("last_by") if isinstance(rule, dict) and len(rule) == 1 else None
    if rule != "fail" and not isinstance(by, str) and not isinstance(rule, BaseModel):
        raise ValueError(f"is {rule!r}: write fail, or {{last_by: column}}, whose largest value stands")
    return rule


OnDuplicate = Annotated[Literal["fail"] | LastBy, BeforeValidator(_check_rule)]
"""What several rows for one key (or one element of a key) are: an error, or settled by a column."""
