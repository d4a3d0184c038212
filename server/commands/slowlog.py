"""SLOWLOG: the commands that took long (server/observe/slowlog.py says what is kept)."""

from __future__ import annotations

from server.commands.arguments import integer
from server.commands.registry import Family
from server.resp import texts
from server.resp.helptexts import SLOWLOG_HELP
from server.resp.replies import OK, ReplyError, Simple, encode
from server.resp.replies import integer as integer_reply
from server.session import Session

FAMILY = Family("server", "")

FAMILY.container("slowlog")

COUNT_DEFAULT = 10  # Redis'

_ADMIN = "admin loading stale"


@FAMILY.command("slowlog|get", -2, _ADMIN, tips="request_policy:all_nodes nondeterministic_output")
def get(session: Session, words: list[bytes], _slot: int) -> bytes:
    """The newest entries."""
    if len(words) > 3:
        raise ReplyError(texts.subcommand_usage("SLOWLOG", words[1]))
    count = COUNT_DEFAULT if len(words) == 2 else integer(words[2], texts.SLOWLOG_COUNT)
    if count < -1:
        raise ReplyError(texts.SLOWLOG_COUNT)
    entries = [[one.number, one.at_s, one.took_us, list(one.words), one.peer, one.name] for one in session.services.slowlog.newest(count)]
    return encode(entries, session.resp)


@FAMILY.command("slowlog|len", 2, _ADMIN, tips="request_policy:all_nodes response_policy:agg_sum nondeterministic_output")
def length(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """How many entries there are."""
    return integer_reply(len(session.services.slowlog))


@FAMILY.command("slowlog|reset", 2, _ADMIN, tips="request_policy:all_nodes response_policy:all_succeeded")
def reset(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Forget all entries."""
    session.services.slowlog.clear()
    return OK


@FAMILY.command("slowlog|help", 2, "loading stale")
def help_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What there is."""
    return encode([Simple(line) for line in SLOWLOG_HELP], session.resp)
