"""CONFIG: what the shard's parameters are, and changing them while it runs. Which there are is in parameters.py."""

from __future__ import annotations

import resource
from typing import Any

import structlog

from server.commands.parameters import BY_NAME, Parameter
from server.commands.registry import Family
from server.commands.scanning import glob
from server.resp import texts
from server.resp.helptexts import CONFIG_HELP
from server.resp.replies import OK, ReplyError, Simple, encode
from server.session import Session
from server.settings import DESCRIPTORS_RESERVED

FAMILY = Family("server", "")

FAMILY.container("config")

IMMUTABLE = "can't set immutable config"

_ADMIN = "admin noscript loading stale"
_GLOB_BYTES = frozenset(b"*?[")

_log = structlog.get_logger("server.config")


@FAMILY.command("config|get", -3, _ADMIN)
def get(session: Session, words: list[bytes], _slot: int) -> bytes:
    """The parameters that fit any of the patterns."""
    found: dict[str, bytes] = {}
    for word in words[2:]:
        if _GLOB_BYTES.isdisjoint(word):
            found.setdefault(word.lower().decode(errors="replace"), word)  # shown as the client spells it, as Redis does
        else:
            fits = glob(word.lower())
            for name in BY_NAME:
                if fits.fullmatch(name.encode()):
                    found.setdefault(name, name.encode())
    config, settings = session.services.config, session.services.settings
    return encode({shown: BY_NAME[name].show(config, settings) for name, shown in found.items() if name in BY_NAME}, session.resp)


@FAMILY.command("config|set", -4, _ADMIN, tips="request_policy:all_nodes response_policy:all_succeeded")
def set_(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Change some parameters: all of them, or none."""
    if len(words) % 2:
        raise ReplyError(texts.SYNTAX)
    names, values = words[2::2], words[3::2]
    changes = [(parameter, _parsed(session, name, parameter, value)) for name, parameter, value in _named(names, values)]
    for parameter, value in changes:
        parameter.put(session.services.config, value)
    _log.info("parameters changed", client=session.peer, names=[parameter.name for parameter, _ in changes])
    return OK


def _named(names: list[bytes], values: list[bytes]) -> list[tuple[bytes, Parameter, str]]:
    """As Redis, look at all names before the first value."""
    found: list[tuple[bytes, Parameter, str]] = []
    for name, value in zip(names, values, strict=True):
        parameter = BY_NAME.get(name.lower().decode(errors="replace"))
        if parameter is None:
            raise ReplyError(texts.config_unknown(name))
        if parameter.parse is None:
            raise ReplyError(texts.config_refused(name, IMMUTABLE))
        if any(name.lower() == other.lower() for other, _, _ in found):
            raise ReplyError(texts.config_refused(name, "duplicate parameter"))
        found.append((name, parameter, value.decode(errors="surrogateescape")))
    return found


def _parsed(session: Session, name: bytes, parameter: Parameter, word: str) -> Any:
    try:
        value: Any = parameter.parse(word) if parameter.parse else None
        if parameter.name == "requirepass" and not value and not session.services.settings.on_loopback:
            raise ValueError("this shard listens beyond loopback, which needs a password")  # noqa: TRY301 -- as the parsers' own
        if parameter.name == "maxclients":
            _check_descriptors(value)
    except ValueError as wrong:
        raise ReplyError(texts.config_refused(name, str(wrong))) from wrong
    return value


def _check_descriptors(clients: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard - DESCRIPTORS_RESERVED
    if hard != resource.RLIM_INFINITY and clients > most:
        raise ValueError(f"The operating system is not able to handle the specified number of clients, try with {most}")


@FAMILY.command("config|resetstat", 2, _ADMIN)
def resetstat(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Let INFO count from zero; what the node's sidecar reads goes on."""
    session.services.stats.reset()
    session.services.engine.expired_keys = 0
    session.services.commands.reset()
    session.services.latencies.forget_longest()
    return OK


@FAMILY.command("config|rewrite", 2, _ADMIN)
def rewrite(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused: this server does not write its settings file."""
    raise ReplyError(texts.NO_REWRITE)


@FAMILY.command("config|help", 2, "loading stale")
def help_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What there is."""
    return encode([Simple(line) for line in CONFIG_HELP], session.resp)
