"""The common scenario: what every client is asked to do, and what it must give.

Rules:
- `scenario.json` is the only description: sections of steps; a step is a verb with arguments (`do`), and what comes of it (`gives`). A
  driver per client knows how a user of that client says each verb, and turns what its client gives into plain JSON; it expects nothing.
- `RUN` in a text is the name of the run, so that runs don't meet; `#` is the number of a repeated step (`times`).
- `gives` may also be `{"error": beginning}`, `{"between": [least, most]}`, `{"numbered": [text, count]}`: those texts, in any order.
- Of an error, the code counts, but for `ERR`, which clients cut off; and the text, which some of them put into a sentence of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).with_name("scenario.json")
READ_ONLY_SECTION = "loaded keys are read-only"
LOADED_KEYS = 30

Verb = list[Any]
"""A verb and its arguments; those of `pipeline` and `transaction` are a list of verbs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; what it gives."""

    section: str
    do: Verb
    gives: Any


def steps(run: str, *, without: Iterable[str] = ()) -> list[Step]:
    """All steps of the scenario for one run, but for some sections."""
    document: dict[str, list[dict[str, Any]]] = json.loads(SCENARIO.read_text(encoding="utf-8"))
    return [
        step for section, written in document.items() if section not in without for one in written for step in _repeated(section, one, run)
    ]


def _repeated(section: str, written: Mapping[str, Any], run: str) -> Iterator[Step]:
    for number in range(written.get("times", 1)):
        words = {"RUN": run, "#": str(number)} if "times" in written else {"RUN": run}
        yield Step(section, _filled(written["do"], words), _filled(written["gives"], words))


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    match value:
        case str():
            for word, replacement in words.items():
                value = value.replace(word, replacement)
            return value
        case list():
            return [_filled(one, words) for one in value]
        case {"repeated": [str(text), int(times)]}:
            return text * times
        case {"numbered": [str(text), int(count)]}:
            return {"numbered": [_filled(text, {**words, "#": str(number)}) for number in range(count)]}
        case dict():
            return {_filled(name, words): _filled(one, words) for name, one in value.items()}
    return value


def check(asked: list[Step], given: list[Any]) -> None:
    """Every step gave what it must."""
    wrong = [
        f"{one.section}: {str(one.do)[:300]} gave {str(got)[:300]}, not {str(one.gives)[:300]}"
        for one, got in zip(asked, given, strict=True)
        if not _fits(one.gives, got)
    ]
    assert not wrong, f"{len(wrong)} of {len(asked)} steps:\n" + "\n".join(wrong[:20])


def _fits(wanted: Any, given: Any) -> bool:
    match wanted:
        case {"error": str(wording)}:
            code, _, text = wording.partition(" ")
            message = given.get("error") if isinstance(given, dict) else None
            return isinstance(message, str) and text in message and (code == "ERR" or message.startswith(f"{code} "))
        case {"between": [least, most]}:
            return isinstance(given, int) and least <= given <= most
        case {"numbered": list(texts)}:
            return isinstance(given, list) and sorted(given) == sorted(texts)
        case list():
            return isinstance(given, list) and len(given) == len(wanted) and all(map(_fits, wanted, given))
    return bool(wanted == given)
