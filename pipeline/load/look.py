"""What keys and values say, for people who look at one: pure."""

from __future__ import annotations

from typing import Any

from pipeline.format.errors import FormatError
from pipeline.format.keys import ELEMENT_KINDS, SCORE_BYTES, Kind, parse_key, parse_sortable_score
from pipeline.format.values import BigValue, HashValue, StringValue, ZsetValue, decode_value

SHOWN_BYTES = 200  # of a value: enough to recognise it


def shown(raw: bytes) -> str:
    """Bytes as text; what is none is escaped, what is long is cut."""
    text = raw[:SHOWN_BYTES].decode(errors="backslashreplace")
    return text if len(raw) <= SHOWN_BYTES else f"{text}… ({len(raw)} bytes)"


def describe_key(raw: bytes) -> dict[str, Any]:
    """The parts of an internal key.

    Raises:
        FormatError: it is none.
    """
    key = parse_key(raw)
    told: dict[str, Any] = {"internal_key": raw.hex(), "slot": key.slot, "kind": key.kind.name.lower().replace("_", "-")}
    if key.kind is Kind.META or key.kind in ELEMENT_KINDS:
        told["user_key"] = shown(key.user_key)
    if key.kind in ELEMENT_KINDS:
        told["element_version"] = key.version
    detail = key.detail
    if key.kind is Kind.ZSET_RANK:
        told["score"], detail = parse_sortable_score(detail[:SCORE_BYTES]), detail[SCORE_BYTES:]
    if detail:
        told["detail"] = shown(detail)
    return told


def describe_entry(raw_key: bytes, raw_value: bytes) -> dict[str, Any]:
    """An entry of an SST file: its key, and what stands under it; of what breaks the grammar, that it does."""
    try:
        told = describe_key(raw_key)
        told["bytes"] = len(raw_value)
        return told | (_value(raw_value) if told["kind"] == "meta" else {"value": shown(raw_value)})
    except FormatError as broken:
        return {"internal_key": raw_key.hex(), "broken": broken.message}


def _value(raw: bytes) -> dict[str, Any]:
    if not raw:
        return {"type": "delete"}  # of an upsert's file
    value = decode_value(raw)
    expiry = {"expires_at_ms": value.expiry_ms} if value.expiry_ms is not None else {}
    match value:
        case StringValue():
            return {"type": "string", "value": shown(value.value), **expiry}
        case HashValue():
            return {"type": "hash", "fields": len(value.pairs), "first": _first(field for field, _ in value.pairs), **expiry}
        case ZsetValue():
            return {"type": "zset", "members": len(value.members), "first": _first(member for member, _ in value.members), **expiry}
        case BigValue():
            return {"type": value.type.name.lower(), "elements": value.count, "element_version": value.version, **expiry}


def _first(names: Any) -> str:
    return shown(next(iter(names), b""))
