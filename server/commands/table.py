"""All commands of this server."""

from __future__ import annotations

from server.commands import admin, client, cluster, connection, hashes, info, keys, strings, zsets
from server.commands.introspection import Introspection
from server.commands.registry import Command, join

_FAMILIES = (connection, client, info, keys, strings, hashes, zsets, cluster, admin)


def command_table() -> dict[bytes, Command]:
    """Commands by lower-case name."""
    table: dict[bytes, Command] = {}
    table.update(join([*(module.FAMILY for module in _FAMILIES), Introspection(table).family]))
    return table
