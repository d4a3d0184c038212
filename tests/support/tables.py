"""Random rows of every Hive type, and their texts as docs/types.md says, in plain Python: it knows nothing of the job."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

NULLS = 0.15  # of the values of a column
DAY_S = 86_400
WORD = 'ab {}$:"\\/ü\u4e2d\U0001f600\r\n\t\0'


@dataclass(frozen=True)
class ColumnType:
    """A Hive type: how to make a value, its text, and what it is in JSON (of which numbers are read as Decimals)."""

    ddl: str
    make: Callable[[random.Random], Any]
    text: Callable[[Any], str | bytes]
    json: Callable[[Any], Any]


def _whole(ddl: str, bits: int) -> ColumnType:
    least = -(1 << (bits - 1))
    return ColumnType(ddl, lambda chosen: chosen.choice((least, 0, -least - 1, chosen.randint(least, -least - 1))), str, Decimal)


def real_text(shortest: str) -> str:
    """A float from the digits that read back as the same number."""
    if shortest in ("nan", "inf", "-inf"):
        return shortest
    number = Decimal(shortest)
    sign = "-" if number.is_signed() else ""
    if not number:
        return f"{sign}0"
    digits = "".join(map(str, number.normalize().as_tuple().digits))
    power = number.adjusted()
    if power >= 10 or power < -6:
        return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{power:+}"
    return f"{number.normalize():f}"


def _extreme(chosen: random.Random) -> float:
    special = (float("nan"), float("inf"), float("-inf"), -0.0, 1e10, 9999999999.0, 1e-6, 5e-324, 1.7976931348623157e308)
    return chosen.choice((*special, chosen.uniform(-1, 1) * 10.0 ** chosen.randint(-30, 30)))


def _word(chosen: random.Random) -> str:
    return "".join(chosen.choices(WORD, k=chosen.randint(0, 9)))


def instant(chosen: random.Random) -> dt.datetime:
    """A moment between 1980 and 2043."""
    fraction = chosen.choice((0, 500, 250_000))
    return dt.datetime(1980, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=chosen.randint(0, 2_000_000_000), microseconds=fraction)


def _moment_text(value: dt.datetime) -> str:
    fraction = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
    return f"{value:%Y-%m-%dT%H:%M:%S}{fraction}{'Z' if value.tzinfo else ''}"


def _moment_json(value: dt.datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond:06}{'Z' if value.tzinfo else ''}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _numbers(value: Any) -> Any:
    return json.loads(_compact(value), parse_int=Decimal)


def _one_of(make: Callable[[random.Random], Any]) -> Callable[[random.Random], Any]:
    return lambda chosen: [make(chosen) for _ in range(chosen.randint(0, 3))]


TYPES = {
    "tiny": _whole("tinyint", 8),
    "small": _whole("smallint", 16),
    "int": _whole("int", 32),
    "whole": _whole("bigint", 64),
    "single": ColumnType(
        "float",
        lambda chosen: float(np.float32(chosen.uniform(-1, 1) * 10.0 ** chosen.randint(-9, 12))),
        lambda value: real_text(np.format_float_scientific(np.float32(value), unique=True, trim="-")),
        np.float32,
    ),
    "real": ColumnType("double", lambda chosen: chosen.randint(-4_000_000, 4_000_000) / 8, lambda value: real_text(repr(value)), Decimal),
    "extreme": ColumnType("double", _extreme, lambda value: real_text(repr(value)), Decimal),
    "exact": ColumnType(
        "decimal(20,6)", lambda chosen: Decimal(chosen.randint(-(10**12), 10**12)) / 10**6, lambda value: f"{value:.6f}", Decimal
    ),
    "yes": ColumnType("boolean", lambda chosen: chosen.random() < 0.5, lambda value: "true" if value else "false", bool),
    "word": ColumnType("string", _word, str, str),
    "short": ColumnType("varchar(12)", _word, str, str),
    "padded": ColumnType("char(4)", lambda chosen: "".join(chosen.choices("abü", k=chosen.randint(1, 4))).ljust(4), str, str),
    "raw": ColumnType(
        "binary", lambda chosen: chosen.randbytes(chosen.randint(0, 9)), bytes, lambda value: base64.b64encode(value).decode()
    ),
    "day": ColumnType("date", lambda chosen: dt.date(1970, 1, 1) + dt.timedelta(days=chosen.randint(-40_000, 40_000)), str, str),
    "moment": ColumnType("timestamp", instant, _moment_text, _moment_json),
    "clock": ColumnType("timestamp_ntz", lambda chosen: instant(chosen).replace(tzinfo=None), _moment_text, _moment_json),
    "list": ColumnType("array<int>", _one_of(lambda chosen: chosen.randint(0, 9)), _compact, _numbers),
    "map": ColumnType("map<string,int>", lambda chosen: {"k": chosen.randint(0, 9)}, _compact, _numbers),
    "struct": ColumnType("struct<a:int,b:string>", lambda chosen: {"a": chosen.randint(0, 9), "b": _word(chosen)}, _compact, _numbers),
}
SCORES = ("tiny", "small", "int", "whole", "single", "real", "exact")  # the numbers, without those that are NaN here and there

RULES = {"id": "string", "element": "string", "at": "int", "gone": "boolean", "until": "timestamp", "left": "bigint", "page": "string"}
DDL = ", ".join(f"`{name}` {kind}" for name, kind in [*((name, kind.ddl) for name, kind in TYPES.items()), *RULES.items()])


def rows_of(chosen: random.Random, ids: int, repeats: int, elements: int | None = None) -> list[Row]:
    """Rows with a NULL here and there; every id `repeats` times, in an order of their own, with about so many elements."""
    rows = []
    for one in range(ids):
        for again in range(repeats):
            row: Row = {name: None if chosen.random() < NULLS else kind.make(chosen) for name, kind in TYPES.items()}
            row |= {"id": f"k{one}", "element": f"e{chosen.randint(0, elements or 5 * repeats)}", "at": again}
            row |= {"gone": chosen.choice((None, False, False, False, True))}
            row |= {
                "until": chosen.choice((None, dt.datetime(2100, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=chosen.randint(0, 10**6))))
            }
            row |= {"left": chosen.choice((None, chosen.randint(DAY_S, 10**9)))}
            row |= {"page": None if chosen.random() < NULLS else _word(chosen) * chosen.choice((0, 1, 40, 400))}
            rows.append(row)
    chosen.shuffle(rows)
    return rows


def text_of(name: str, row: Row) -> bytes | None:
    """The text of a column that has a type of TYPES or is a string; None for NULL."""
    if row[name] is None:
        return None
    text = TYPES[name].text(row[name]) if name in TYPES else row[name]
    return text if isinstance(text, bytes) else text.encode()


def texts_of(row: Row, fields: dict[str, str] | None = None) -> dict[bytes, bytes]:
    """The fields of a hash of one row: all types, or columns by field."""
    texts = {field: text_of(name, row) for field, name in (fields or {name: name for name in TYPES}).items()}
    return {field.encode(): text for field, text in texts.items() if text is not None}


def last_of(rows: list[Row], *by: str) -> list[Row]:
    """Of rows that agree in `by`, the one with the largest `at`."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        kept[tuple(row[name] for name in by)] = row
    return list(kept.values())


def documented_texts() -> dict[str, list[bytes]]:
    """The examples of docs/types.md by the first word of their row."""
    rows = re.findall(r"^\| ([A-Z]+).*\| ([^|]*) \|$", Path("docs/types.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {kind: [text.encode() for text in re.findall(r"`([^`]*)`", examples)] for kind, examples in rows}
