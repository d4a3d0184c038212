"""Who has not authenticated: a command table in which everything but what lets a client in answers NOAUTH, after Redis' order of checks."""

from __future__ import annotations

from dataclasses import replace

from server.commands.registry import NO_KEYS, Command
from server.resp import texts
from server.resp.replies import ReplyError
from server.session import Session


def door_table(table: dict[bytes, Command]) -> dict[bytes, Command]:
    """The table for connections that have not authenticated: same names and arities, no keys, so that nobody is redirected."""
    return {name: _at_the_door(command) for name, command in table.items()}


def _at_the_door(command: Command) -> Command:
    if "no_auth" in command.flags:
        return command
    return replace(
        command,
        run=_refuse if command.run else None,
        keys=NO_KEYS,
        writes=False,
        reads_key=False,
        first_key=0,
        subcommands={name: _at_the_door(one) for name, one in command.subcommands.items()},
    )


def _refuse(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    raise ReplyError(texts.NO_AUTH)
