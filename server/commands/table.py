"""All commands of this server."""

from __future__ import annotations

from server.commands import (
    admin,
    client,
    clientcontrol,
    cluster,
    config,
    connection,
    counters,
    flush,
    hash_picks,
    hash_writes,
    hashes,
    info,
    keys,
    keyspace,
    latency,
    objects,
    renames,
    server,
    slowlog,
    strings,
    textedits,
    transactions,
    ttl,
    zset_ranges,
    zset_removals,
    zset_writes,
    zsets,
)
from server.commands.introspection import Introspection
from server.commands.registry import Command, join

_FAMILIES = (
    connection,
    client,
    clientcontrol,
    config,
    server,
    slowlog,
    latency,
    info,
    keys,
    ttl,
    keyspace,
    renames,
    objects,
    flush,
    strings,
    textedits,
    counters,
    hashes,
    hash_writes,
    hash_picks,
    zsets,
    zset_ranges,
    zset_writes,
    zset_removals,
    transactions,
    cluster,
    admin,
)


def all_commands(table: dict[bytes, Command]) -> list[Command]:
    """Commands and subcommands."""
    return [one for command in table.values() for one in (command, *command.subcommands.values())]


def find(table: dict[bytes, Command], words: list[bytes]) -> Command | None:
    """The command, or subcommand, that is called; None if there is none."""
    command = table.get(words[0].lower())
    if command is not None and command.subcommands and len(words) > 1:
        return command.subcommands.get(words[1].lower())
    return command


def command_table() -> dict[bytes, Command]:
    """Commands by lower-case name."""
    table: dict[bytes, Command] = {}
    table.update(join([*(module.FAMILY for module in _FAMILIES), objects.MEMORY, Introspection(table).family]))
    return table
