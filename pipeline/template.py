"""Templates of keys and members: literal text around column values.

Rules:
- Braces stay what they are to Redis: `{person}_${id}` has the hash tag `person`. Only `${...}` is replaced.
- `${column}` is the text form of the column; `${shard(n)}` is a number 1..n computed from the columns.
- A key's prefix is the literal text before the first `${`; it names the dataset, so it must not be empty.

::

    template  := (literal | '${' column '}' | '${shard(' n ')}')+
    column    := one or more characters other than '{', '}', '(', ')'
    n         := 1..16384
    shard(n)  := 1 + CRC-32(text) mod n
    text      := the text forms of all ${column} of the template, in order, joined by the byte 0x1F

CRC-32 is that of zlib and IEEE 802.3. A client finds the key of id 42 in `{person:${shard(16)}}_${id}` as
`{person:` + str(1 + crc32("42") % 16) + `}_42`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from pipeline.format.errors import TemplateError

SHARDS_MAX = 16_384  # one per slot: more would not spread further
SEPARATOR = b"\x1f"  # ASCII's unit separator, so that ("a", "bc") and ("ab", "c") differ

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_SHARD = re.compile(r"shard\(\s*([0-9]{1,9})\s*\)")
_COLUMN = re.compile(r"[^{}()]+")


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that stands as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """The text form of a column."""

    name: str


@dataclass(frozen=True, slots=True)
class ShardNumber:
    """A number 1..count computed from the columns."""

    count: int


Part = Literal | Column | ShardNumber


def shard_number(values: list[bytes], count: int) -> int:
    """The documented shard function: `values` are the column texts in the order of the template."""
    return 1 + crc32(SEPARATOR.join(values)) % count


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    source: str
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Parse a template.

        Raises:
            TemplateError: it breaks the grammar, or holds no column.
        """
        parts: list[Part] = []
        end = 0
        for match in _PLACEHOLDER.finditer(source):
            if match.start() > end:
                parts.append(Literal(source[end : match.start()]))
            parts.append(_placeholder(source, match.group(1)))
            end = match.end()
        if end < len(source):
            parts.append(Literal(source[end:]))
        for part in parts:
            if isinstance(part, Literal) and "${" in part.text:
                raise TemplateError(f"template {source!r} opens '${{' without closing it: write ${{column}}", template=source)
        if not any(isinstance(part, Column) for part in parts):
            raise TemplateError(
                f"template {source!r} uses no column, so every row would get the same text: write e.g. {source}${{id}}", template=source
            )
        return cls(source, tuple(parts))

    @property
    def prefix(self) -> str:
        """The literal text before the first placeholder; may be empty here, a key's must not."""
        first = self.parts[0]
        return first.text if isinstance(first, Literal) else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns used, in order, repeated ones included."""
        return tuple(part.name for part in self.parts if isinstance(part, Column))

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """Put column texts in.

        Raises:
            TemplateError: `values` lacks a column.
        """
        missing = [name for name in self.columns if name not in values]
        if missing:
            raise TemplateError(f"template {self.source!r} needs a value for {', '.join(missing)}", template=self.source, missing=missing)
        texts = [values[name] for name in self.columns]
        return b"".join(_render(part, values, texts) for part in self.parts)


def _placeholder(source: str, inside: str) -> Part:
    shard = _SHARD.fullmatch(inside.strip())
    if shard:
        count = int(shard.group(1))
        if not 1 <= count <= SHARDS_MAX:
            raise TemplateError(f"template {source!r} has shard({count}): write a number from 1 to {SHARDS_MAX}", template=source)
        return ShardNumber(count)
    if not _COLUMN.fullmatch(inside):
        raise TemplateError(f"template {source!r} has '${{{inside}}}': write ${{column}} or ${{shard(16)}}", template=source)
    return Column(inside)


def _render(part: Part, values: Mapping[str, bytes], texts: list[bytes]) -> bytes:
    match part:
        case Literal(text=text):
            return text.encode()
        case Column(name=name):
            return values[name]
        case ShardNumber(count=count):
            return b"%d" % shard_number(texts, count)
