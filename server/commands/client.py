"""CLIENT: names, ids, and who is connected. What ends or holds connections is in clientcontrol.py."""

from __future__ import annotations

from server.commands.arguments import integer as to_integer
from server.commands.registry import Family
from server.resp import texts
from server.resp.helptexts import CLIENT_HELP
from server.resp.replies import NULL, OK, ReplyError, ReplySet, Simple, Verbatim, bulk, encode, integer
from server.session import Session

FAMILY = Family("connection", "connection")

FAMILY.container("client")

_BASIC = "noscript loading stale"
_ADMIN = "admin noscript loading stale"
CLIENT_TYPES = frozenset({b"normal", b"master", b"replica", b"slave", b"pubsub"})


def set_name(session: Session, name: bytes) -> None:
    """Name a connection; the empty name takes it away.

    Raises:
        ReplyError: the name has characters that would break CLIENT LIST.
    """
    if any(not 0x21 <= byte <= 0x7E for byte in name):
        raise ReplyError(texts.CLIENT_NAME)
    session.name = name


@FAMILY.command("client|setname", 3, _BASIC)
def setname(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Name this connection."""
    set_name(session, words[2])
    return OK


@FAMILY.command("client|getname", 2, _BASIC)
def getname(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The name of this connection."""
    return bulk(session.name) if session.name else NULL[session.resp]


@FAMILY.command("client|id", 2, _BASIC)
def client_id(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The id of this connection."""
    return integer(session.id)


@FAMILY.command("client|setinfo", 4, _BASIC)
def setinfo(session: Session, words: list[bytes], _slot: int) -> bytes:
    """What library the client uses, as Redis 7.2 takes it; today's clients send it to every server."""
    name = words[2].lower()
    if name not in session.library:
        raise ReplyError(texts.setinfo_option(words[2]))
    if any(not 0x21 <= byte <= 0x7E for byte in words[3]):
        raise ReplyError(texts.setinfo_value(name))
    session.library[name] = words[3]
    return OK


@FAMILY.command("client|info", 2, _BASIC, tips="nondeterministic_output")
def info(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The line of this connection in CLIENT LIST."""
    return encode(Verbatim(_line(session) + "\n"), session.resp)


@FAMILY.command("client|list", -2, _ADMIN, tips="nondeterministic_output")
def client_list(session: Session, words: list[bytes], _slot: int) -> bytes:
    """All connections, or those of a type, or with some ids."""
    sessions = list(session.services.sessions.values())
    option = words[2].lower() if len(words) > 2 else b""
    if option == b"type" and len(words) == 4:
        if words[3].lower() not in CLIENT_TYPES:
            raise ReplyError(texts.client_type(words[3]))
        sessions = sessions if words[3].lower() == b"normal" else []
    elif option == b"id" and len(words) > 3:
        ids = [to_integer(word, texts.CLIENT_ID) for word in words[3:]]
        sessions = [one for number in ids if (one := session.services.sessions.get(number))]
    elif option:
        raise ReplyError(texts.SYNTAX)
    return encode(Verbatim("".join(_line(one) + "\n" for one in sessions)), session.resp)


@FAMILY.command("client|no-evict", 3, _ADMIN)
def no_evict(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """Accepted: this server evicts no clients."""
    if words[2].lower() not in (b"on", b"off"):
        raise ReplyError(texts.SYNTAX)
    return OK


@FAMILY.command("client|getredir", 2, _BASIC)
def getredir(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Where invalidations go: nowhere, because nothing is tracked."""
    return integer(-1)


@FAMILY.command("client|trackinginfo", 2, _BASIC)
def trackinginfo(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Nothing is tracked."""
    return encode({"flags": ReplySet((b"off",)), "redirect": -1, "prefixes": []}, session.resp)


@FAMILY.command("client|tracking", -3, _BASIC)
def tracking(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """OFF is what it is; ON is refused, because this server sends no invalidations."""
    options = [word.lower() for word in words[3:]]
    place = 0
    while place < len(options):
        if options[place] in (b"prefix", b"redirect") and place + 1 < len(options):
            place += 2
        elif options[place] in (b"bcast", b"optin", b"optout", b"noloop"):
            place += 1
        else:
            raise ReplyError(texts.SYNTAX)
    match words[2].lower():
        case b"off":
            return OK
        case b"on":
            raise ReplyError(texts.TRACKING_PREFIX if b"prefix" in options and b"bcast" not in options else texts.NO_TRACKING)
    raise ReplyError(texts.SYNTAX)


@FAMILY.command("client|caching", 3, _BASIC)
def caching(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Refused: nothing is tracked."""
    raise ReplyError(texts.CACHING_WITHOUT_TRACKING)


@FAMILY.command("client|help", 2, "loading stale")
def client_help(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What there is."""
    return encode([Simple(line) for line in CLIENT_HELP], session.resp)


def _line(session: Session) -> str:
    now = session.services.engine.clock()
    fields = {
        "id": session.id,
        "addr": session.peer,
        "laddr": session.local,
        "fd": session.descriptor,
        "name": session.name.decode(),
        "age": (now - session.created_ms) // 1_000,
        "idle": (now - session.last_ms) // 1_000,
        "flags": "r" if session.readonly else "N",
        "db": 0,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1,
        "qbuf": session.client.unparsed_bytes() if session.client else 0,
        "omem": session.client.unsent_bytes() if session.client else 0,
        "cmd": session.last_command,
        "user": "default",
        "redir": -1,
        "resp": session.resp,
        "lib-name": session.library[b"lib-name"].decode(),
        "lib-ver": session.library[b"lib-ver"].decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())
