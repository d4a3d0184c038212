"""COMMAND: the table describes itself, to clients that look for key positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from server.commands.registry import NO_KEYS, Command, Family, Keys
from server.commands.scanning import glob
from server.resp import texts
from server.resp.helptexts import COMMAND_HELP
from server.resp.replies import ReplyError, ReplySet, Simple, encode, integer
from server.session import Session

_FLAGS = "loading stale"

Words = list[bytes]


class Introspection:
    """COMMAND's handlers over a table, which may still grow."""

    def __init__(self, table: dict[bytes, Command]) -> None:
        self._table = table
        self.family = Family("server", "connection")
        add = self.family.add
        varies = "nondeterministic_output_order"
        add("command", self.command, -1, _FLAGS, NO_KEYS, tips=varies)
        add("command|count", self.count, 2, _FLAGS, NO_KEYS)
        add("command|docs", self.docs, -2, _FLAGS, NO_KEYS, tips=varies)
        add("command|getkeys", self.getkeys, -4, _FLAGS, NO_KEYS)
        add("command|getkeysandflags", self.getkeysandflags, -4, _FLAGS, NO_KEYS)
        add("command|help", self.help, 2, _FLAGS, NO_KEYS)
        add("command|list", self.list, -2, _FLAGS, NO_KEYS, tips=varies)
        add("command|info", self.info, -2, _FLAGS, NO_KEYS, tips=varies)

    def command(self, session: Session, _words: list[bytes], _slot: int) -> bytes:
        """All commands with arity, flags and key positions."""
        return encode([_describe(one) for one in _public(self._table)], session.resp)

    def count(self, _session: Session, _words: list[bytes], _slot: int) -> bytes:
        """How many commands there are."""
        return integer(sum(1 for _ in _public(self._table)))

    def info(self, session: Session, words: list[bytes], slot: int) -> bytes:
        """As COMMAND, for the named ones; null for what does not exist."""
        if len(words) == 2:
            return self.command(session, words, slot)
        found = [_by_name(self._table, name) for name in words[2:]]
        return encode([one and _describe(one) for one in found], session.resp)

    def docs(self, session: Session, words: list[bytes], _slot: int) -> bytes:
        """A summary of all or the named commands."""
        named = list(_public(self._table)) if len(words) == 2 else [one for name in words[2:] if (one := _by_name(self._table, name))]
        return encode({one.name: _document(one) for one in named}, session.resp)

    def list(self, session: Session, words: Words, _slot: int) -> bytes:
        """The names of all commands, or of those of a category, or that fit a pattern."""
        shown = (one.name for one in _public(self._table))
        match [word.lower() for word in words[2:]]:
            case []:
                names = list(shown)
            case [b"filterby", b"module", _]:
                names = []
            case [b"filterby", b"aclcat", category]:
                wanted = f"@{category.decode(errors='replace')}"
                names = [one.name for one in _public(self._table) if wanted in one.categories]
            case [b"filterby", b"pattern", pattern]:
                fits = glob(pattern)
                names = [name for name in shown if fits.fullmatch(name.encode())]
            case _:
                raise ReplyError(texts.SYNTAX)
        return encode(names, session.resp)

    def help(self, session: Session, _words: Words, _slot: int) -> bytes:
        """What there is."""
        return encode([Simple(line) for line in COMMAND_HELP], session.resp)

    def getkeys(self, session: Session, words: Words, _slot: int) -> bytes:
        """The keys of a whole command."""
        one, called = self._called(words)
        return encode(one.keys.of(called), session.resp)

    def getkeysandflags(self, session: Session, words: Words, _slot: int) -> bytes:
        """The keys of a whole command, and what it does to them."""
        one, called = self._called(words)
        access = _names((_plain_set_access(called) if one.name == "set" else one.keys.access).split())
        return encode([[key, access] for key in one.keys.of(called)], session.resp)

    def _called(self, words: Words) -> tuple[Command, Words]:
        called = words[2:]
        one = _by_name(self._table, called[0])
        if one is not None and one.subcommands:
            one = one.subcommands.get(called[1].lower()) if len(called) > 1 else None
        if one is None:
            raise ReplyError(texts.GETKEYS_UNKNOWN)
        if not one.keys.first:
            raise ReplyError(texts.GETKEYS_NO_KEYS)
        if not one.least <= len(called) <= one.most:
            raise ReplyError(texts.GETKEYS_ARITY)
        return one, called


def _plain_set_access(called: Words) -> str:
    """SET is the one command whose access depends on an option."""
    return "RW access update" if any(word.lower() == b"get" for word in called[3:]) else "OW update"


def _public(table: dict[bytes, Command]) -> Iterator[Command]:
    return (one for one in table.values() if not one.admin_only)


def _by_name(table: dict[bytes, Command], name: bytes) -> Command | None:
    container, _, rest = name.lower().partition(b"|")
    found = table.get(container)
    if found is not None and rest:
        found = found.subcommands.get(rest)
    return None if found is None or found.admin_only else found


def _describe(command: Command) -> list[Any]:
    return [
        command.name,
        command.arity,
        _names(command.flags),
        command.keys.first,
        command.keys.last,
        command.keys.step,
        _names(command.categories),
        ReplySet(command.tips),
        ReplySet(_key_specifications(command.keys)),
        [_describe(one) for one in command.subcommands.values()] or ReplySet(),  # Redis says an array, or an empty set
    ]


def _key_specifications(keys: Keys) -> list[dict[str, Any]]:
    if not keys.first:
        return []
    if keys.last_access:
        apart = (Keys(keys.first, keys.last - 1, keys.step, keys.access), Keys(keys.last, keys.last, keys.step, keys.last_access))
        return [_key_specification(one) for one in apart]
    return [_key_specification(keys)]


def _key_specification(keys: Keys) -> dict[str, Any]:
    last = keys.last if keys.last < 0 else keys.last - keys.first
    notes = {"notes": keys.notes} if keys.notes else {}
    return notes | {
        "flags": _names(keys.access.split()),
        "begin_search": {"type": "index", "spec": {"index": keys.first}},
        "find_keys": {"type": "range", "spec": {"lastkey": last, "keystep": keys.step, "limit": 0}},
    }


def _names(words: Iterable[str]) -> ReplySet:
    return ReplySet(Simple(word) for word in words)


def _document(command: Command) -> dict[str, Any]:
    document: dict[str, Any] = {"summary": command.summary, "since": "1.0.0", "group": command.group}
    if command.subcommands:
        document["subcommands"] = {one.name: _document(one) for one in command.subcommands.values()}
    return document
