"""What clients send when they connect: PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from hmac import compare_digest

from server.cluster.roles import hello_role
from server.commands.arguments import INT32_MAX, integer
from server.commands.client import set_name
from server.commands.registry import Family
from server.resp import texts
from server.resp.replies import OK, ReplyError, bulk, encode, simple
from server.session import Session

FAMILY = Family("connection", "connection")

REDIS_VERSION = "7.0.15"  # whose behaviour this server shows; clients choose features by it
PROTOCOLS = (2, 3)
DEFAULT_USER = b"default"  # as in Redis, whose password is `requirepass`; without one, any is right

_AT_ANY_TIME = "noscript loading stale fast no_auth allow_busy"
_PONG = simple("PONG")
_RESET = simple("RESET")


@FAMILY.command("ping", -1, "fast", tips="request_policy:all_shards response_policy:all_succeeded")
def ping(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """PONG, or the given word."""
    if len(words) > 2:
        raise ReplyError(texts.wrong_arity("ping"))
    return _PONG if len(words) == 1 else bulk(words[1])


@FAMILY.command("echo", 2, "loading stale fast")
def echo(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """The given word."""
    return bulk(words[1])


@FAMILY.command("hello", -1, _AT_ANY_TIME)
def hello(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Choose a protocol, authenticate, set a name; who this server is."""
    version = 0
    if len(words) > 1:
        version = integer(words[1], texts.PROTOCOL_VERSION)
        if version not in PROTOCOLS:
            raise ReplyError(texts.NO_PROTOCOL)
    place = 2
    while place < len(words):
        option, left = words[place].lower(), len(words) - 1 - place
        if option == b"auth" and left >= 2:
            _authenticate(session, words[place + 1], words[place + 2])
            place += 3
        elif option == b"setname" and left:
            set_name(session, words[place + 1])
            place += 2
        else:
            raise ReplyError(texts.hello_syntax(words[place]))
    if session.locked:
        raise ReplyError(texts.HELLO_NO_AUTH)
    session.resp = version or session.resp
    greeting = {
        "server": "redis",
        "version": REDIS_VERSION,
        "proto": session.resp,
        "id": session.id,
        "mode": "cluster" if session.services.cluster.enabled else "standalone",
        "role": hello_role(session.services.cluster),
        "modules": [],
    }
    return encode(greeting, session.resp)


@FAMILY.command("auth", -2, _AT_ANY_TIME)
def auth(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Authenticate as the only user, whose name is `default`."""
    if len(words) > 3:
        raise ReplyError(texts.SYNTAX)
    if len(words) == 2 and not session.services.config.requirepass:
        raise ReplyError(texts.NO_PASSWORD_SET)
    _authenticate(session, words[1] if len(words) == 3 else DEFAULT_USER, words[-1])
    return OK


@FAMILY.command("select", 2, "loading stale fast")
def select(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Choose database 0, the only one, in cluster mode and outside of it."""
    number = integer(words[1])
    if abs(number) > INT32_MAX:
        raise ReplyError(texts.OUT_OF_INT_RANGE)
    if number:
        raise ReplyError(texts.SELECT_IN_CLUSTER if session.services.cluster.enabled else texts.DB_OUT_OF_RANGE)
    return OK


@FAMILY.command("quit", -1, _AT_ANY_TIME)
def quit_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Close the connection after this reply."""
    session.closing = True
    return OK


@FAMILY.command("reset", 1, _AT_ANY_TIME)
def reset(session: Session, _words: list[bytes], _slot: int) -> bytes | Awaitable[bytes]:
    """Back to the state of a new connection."""
    session.reset()
    return _locked_again() if session.locked else _RESET


async def _locked_again() -> bytes:
    """The reply in a turn of its own: what comes behind it in a pipeline is run as of who has not authenticated."""
    await asyncio.sleep(0)
    return _RESET


def _authenticate(session: Session, user: bytes, password: bytes) -> None:
    services = session.services
    expected = services.config.requirepass
    if user != DEFAULT_USER or (expected and not compare_digest(password, expected)):
        services.stats.auth_failures += 1
        services.warnings.warning("authentication failed", client=session.peer)
        raise ReplyError(texts.WRONG_PASSWORD)
    session.authenticated()
