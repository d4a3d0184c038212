"""What all stored records share: frozen models, strict fields, one way to JSON, a version that a reader checks first."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from pipeline.format.errors import FormatError, FormatVersionError

DATASET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
VERSION_ID = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}(\d{2}(\d{2})?)?)?(\.[1-9]\d{0,5})?", re.ASCII)


def _bytes_from_hex(raw: Any) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is no string of hex digits")  # noqa: TRY004 -- what pydantic turns into a ValidationError
    return bytes.fromhex(raw)


Mode = Literal["replace", "upsert"]
"""How a version reaches its readers: as a directory that stands for the whole dataset, or row by row into the live keys."""

HexBytes = Annotated[bytes, PlainValidator(_bytes_from_hex), PlainSerializer(bytes.hex, return_type=str)]
"""Bytes that stand as hex digits in JSON."""


def told(error: ErrorDetails, part: str) -> str:
    """One thing that is wrong with a record or with settings, by its name, for whoever wrote it; `part` is what such a name stands for."""
    name = ".".join(map(str, error["loc"]))
    text = f"there is no such {part}" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else text


class Record(BaseModel):
    """Base of every stored or sent JSON record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """UTF-8 JSON, indented for the person on call, with a final newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class VersionedRecord(Record):
    """A record that says in which format version it was written; `FORMAT_VERSION` is the newest that this software reads.

    `NEWER` are the fields that version 2 brought: a record that needs none of them is written in version 1, as if they did not exist, so
    that older software goes on reading it; one that needs them says 2, and is refused by name there.
    """

    FORMAT_VERSION: ClassVar[int] = 1
    NEWER: ClassVar[frozenset[str]] = frozenset()

    format_version: int = 1

    @model_validator(mode="after")
    def _says_its_version(self) -> Self:
        newer = sorted(name for name in self.NEWER if getattr(self, name) != type(self).model_fields[name].default)
        if newer and self.format_version == 1:
            raise ValueError(f"format version 1 has no {', '.join(newer)}")
        return self

    def to_json(self) -> bytes:
        """As for every record, without what its version does not have."""
        return self.model_dump_json(indent=1, exclude=set(self.NEWER) if self.format_version == 1 else None).encode() + b"\n"

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> Self:
        """Parse JSON; `where` names the source in errors.

        Raises:
            FormatVersionError: written by newer software.
            FormatError: no such record.
        """
        try:
            document = from_json(raw)
        except ValueError as broken:
            raise FormatError(f"{where} is not JSON: {broken}", where=where) from broken
        written = document.get("format_version") if isinstance(document, dict) else None
        if isinstance(written, int | float) and written > cls.FORMAT_VERSION:  # 2.0 is 2, as validation has it
            message = f"{where} has format version {written}; this software reads up to {cls.FORMAT_VERSION}: upgrade it first"
            raise FormatVersionError(message, where=where, written=written, readable=cls.FORMAT_VERSION)
        try:
            return cls.model_validate(document)
        except ValidationError as broken:
            raise FormatError(
                f"{where} is no {cls.__name__}: {'; '.join(told(one, 'field') for one in broken.errors())}", where=where
            ) from broken


def version_order(version: str) -> tuple[str, int]:
    """Sort key of version ids: time first, then the number of the rebuild. `2026-11-22` < `2026-11-22.2` < `2026-11-22T06`."""
    moment, _, rebuild = version.partition(".")
    return moment, int(rebuild or 1)
