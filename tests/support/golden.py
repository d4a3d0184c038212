"""The golden files: bytes that must stay readable for as long as their format version lives.

`make golden` (or `python -m tests.support.golden`) writes them anew, and with them the grammars and JSON examples of docs/format.md. Do
that only for a change of the format that you mean to make, and read the difference before you commit it: what is on a customer's disk and
in their object store was written by the old bytes.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections.abc import Iterable
from math import inf
from pathlib import Path

from pipeline.format import keys, values
from pipeline.format.admin import encode_refusal
from pipeline.format.digest import ContentDigest
from pipeline.format.errors import LiveKeysError
from pipeline.format.slots import key_slot
from tests.support import examples

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DOCUMENT = ROOT / "docs" / "format.md"

_JSON_EXAMPLE = re.compile(r"^```json (\S+)\n(?:(?!```).*\n)*```$", re.MULTILINE)
_GRAMMAR = re.compile(r"^```text (\w+)\n(?:(?!```).*\n)*```$", re.MULTILINE)
_LITERAL_BLOCK = re.compile(r"::\n\n((?:    .*\n)+)")


def key_cases() -> dict[str, bytes]:
    """Internal keys, each with what it is."""
    rank = keys.element_head(keys.Kind.ZSET_RANK, b"route:JFK-LAX", 2) + keys.sortable_score(-14.0) + b"2013-01-01T05:00:00Z/AA/1"
    return {
        "meta of {plane}_N14228": keys.meta_key(b"{plane}_N14228"),
        "meta of a key with a zero byte": keys.meta_key(b"a\x00b"),
        "meta of the empty key": keys.meta_key(b""),
        "field `seats` of the big hash {plane}_N14228, version 1": keys.element_head(keys.Kind.HASH_FIELD, b"{plane}_N14228", 1) + b"seats",
        "field `f` of a big hash whose key has a zero byte": keys.element_head(keys.Kind.HASH_FIELD, b"a\x00b", 1) + b"f",
        "member of version 2 of the big zset route:JFK-LAX": keys.element_head(keys.Kind.ZSET_MEMBER, b"route:JFK-LAX", 2) + b"m",
        "rank of a member with score -14": rank,
        "marker of file 0f8fad5b in slot 1838": keys.marker_key(1838, b"0f8fad5b"),
        "a shard's own note `epoch`": keys.local_key(b"epoch"),
    }


def value_cases() -> dict[str, bytes]:
    """Meta values, each with what it is."""
    return {
        "string `hello`": values.encode_string(b"hello"),
        "empty string": values.encode_string(b""),
        "string `hello`, expires at 1795305600000 ms": values.encode_string(b"hello", examples.BUILT_AT_MS),
        "string of 2048 times `ab`, compressed": values.encode_compressed(b"ab" * 2048) or b"",
        "hash name=Ada price=9.5": values.encode_hash(((b"name", b"Ada"), (b"price", b"9.5"))),
        "hash f='' expires at 1795305600000 ms": values.encode_hash(((b"f", b""),), examples.BUILT_AT_MS),
        "zset a=-inf b=1.5 c=1.5 d=inf": values.encode_zset(((b"d", inf), (b"c", 1.5), (b"b", 1.5), (b"a", -inf))),
        "big hash, version 1, 500000 fields": values.encode_big(values.ValueType.HASH, 1, 500_000),
        "big zset, version 2, 3 members, expires at 1795305600000 ms": values.encode_big(values.ValueType.ZSET, 2, 3, examples.BUILT_AT_MS),
    }


def score_cases() -> dict[str, bytes]:
    """Sortable scores in growing order."""
    return {repr(score): keys.sortable_score(score) for score in (-inf, -14.0, -5e-324, 0.0, 5e-324, 1.5, 1e300, inf)}


def slot_cases() -> dict[str, int]:
    """Slots of keys."""
    names = ("123456789", "foo", "{user1000}.following", "foo{}{bar}", "foo{{bar}}zap", "foo{bar}{zap}", "{plane}_N14228", "route:JFK-LAX")
    return {name: key_slot(name.encode()) for name in names}


def digest_cases() -> dict[str, str]:
    """Content digests of entries."""
    cases: dict[str, list[tuple[bytes, bytes | None]]] = {
        "nothing": [],
        "one put a=1": [(b"a", b"1")],
        "put a=1, delete b": [(b"a", b"1"), (b"b", None)],
        "put a='', put b=2": [(b"a", b""), (b"b", b"2")],
        "the two rows of the manifest": list(examples.entries()),
    }
    return {name: _digest(case) for name, case in cases.items()}


def _digest(entries: Iterable[tuple[bytes, bytes | None]]) -> str:
    digest = ContentDigest()
    for key, value in entries:
        digest.update([key], [value])
    return digest.hexdigest()


def refusal_cases() -> dict[str, str]:
    """Refusals of admin commands as the text of a RESP error."""
    refusal = LiveKeysError("2 live keys stand under {person}_: remove them, or choose another prefix", prefix="{person}_", keys=2)
    return {"live keys under a prefix": encode_refusal(refusal)}


def goldens() -> dict[str, bytes]:
    """Every golden file: its name and its bytes."""
    return {
        "keys.json": _lines({what: raw.hex() for what, raw in key_cases().items()}),
        "values.json": _lines({what: raw.hex() for what, raw in value_cases().items()}),
        "scores.json": _lines({what: raw.hex() for what, raw in score_cases().items()}),
        "slots.json": _lines(slot_cases()),
        "digests.json": _lines(digest_cases()),
        "refusals.json": _lines(refusal_cases()),
        "manifest.json": examples.manifest().to_json(),
        "delta.json": examples.delta_manifest().to_json(),
        "topology.json": examples.topology().to_json(),
        "desired.json": examples.desired().to_json(),
        "queue.json": examples.queue().to_json(),
        "audit.json": examples.audit_record().to_json(),
        "VERSION.json": examples.identity().to_json(),
        "status.json": examples.shard_status().to_json(),
    }


def _lines(cases: dict[str, str] | dict[str, int]) -> bytes:
    return json.dumps(cases, indent=1).encode() + b"\n"


def grammars_of(module: str) -> list[str]:
    """The literal blocks (after `::`) of a module's docstring."""
    where = "pipeline.template" if module == "template" else f"pipeline.format.{module}"
    documented = importlib.import_module(where).__doc__ or ""
    return [textwrap.dedent(block) for block in _LITERAL_BLOCK.findall(documented)]


def with_examples(document: str, files: dict[str, bytes]) -> str:
    """The document with its ```json NAME blocks filled from the golden files, its ```text MODULE blocks from the modules."""
    grammars = {module: iter(grammars_of(module)) for module in set(_GRAMMAR.findall(document))}
    document = _GRAMMAR.sub(lambda found: f"```text {found[1]}\n{next(grammars[found[1]])}```", document)
    return _JSON_EXAMPLE.sub(lambda found: f"```json {found[1]}\n{files[found[1]].decode()}```", document)


def rewrite() -> list[Path]:
    """Write all golden files and the examples of the document; the paths whose bytes changed."""
    files = goldens()
    wanted = {GOLDEN / name: data for name, data in files.items()}
    if DOCUMENT.exists():
        wanted[DOCUMENT] = with_examples(DOCUMENT.read_text(encoding="utf-8"), files).encode()
    changed = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[path])
    return changed


if __name__ == "__main__":
    for path in rewrite():
        sys.stdout.write(f"rewritten: {path.relative_to(ROOT)}\n")
