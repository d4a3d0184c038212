"""What all stored records share: frozen models, strict fields, one way to JSON, a version that a reader checks first."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError
from pydantic_core import from_json

from pipeline.format.errors import FormatError, FormatVersionError

DATASET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
VERSION_ID = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}(\d{2}(\d{2})?)?)?(\.[1-9]\d{0,5})?", re.ASCII)


def _bytes_from_hex(raw: Any) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is no string of hex digits")  # noqa: TRY004 -- what pydantic turns into a ValidationError
    return bytes.fromhex(raw)


HexBytes = Annotated[bytes, PlainValidator(_bytes_from_hex), PlainSerializer(bytes.hex, return_type=str)]
"""Bytes that stand as hex digits in JSON."""


class Record(BaseModel):
    """Base of every stored or sent JSON record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """UTF-8 JSON, indented for the person on call, with a final newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class VersionedRecord(Record):
    """A record that says in which format version it was written; `FORMAT_VERSION` is the newest that this software reads."""

    FORMAT_VERSION: ClassVar[int] = 1

    format_version: int = 1

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
        if isinstance(written, int) and written > cls.FORMAT_VERSION:
            message = f"{where} has format version {written}; this software reads up to {cls.FORMAT_VERSION}: upgrade it first"
            raise FormatVersionError(message, where=where, written=written, readable=cls.FORMAT_VERSION)
        try:
            return cls.model_validate(document)
        except ValidationError as broken:
            raise FormatError(f"{where} is no {cls.__name__}: {broken}", where=where) from broken


def version_order(version: str) -> tuple[str, int]:
    """Sort key of version ids: time first, then the number of the rebuild. `2026-11-22` < `2026-11-22.2` < `2026-11-22T06`."""
    moment, _, rebuild = version.partition(".")
    return moment, int(rebuild or 1)
