"""What is known of a stored value: OBJECT and MEMORY USAGE.

Rules:
- Answers are of what is stored, in Redis' terms: a packed collection is a `listpack`, a big one a `hashtable` or `skiplist`.
- What this server does not keep it does not make up: nobody tracks idle times or frequencies, every value has one reference.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from pipeline.format.values import Flag, ValueType, body_start
from server.commands.arguments import INT64_MAX, INT64_MIN, integer
from server.commands.registry import Family, Keys
from server.resp import texts
from server.resp.replies import NULL, ReplyError, Simple, bulk, encode
from server.resp.replies import integer as integer_reply
from server.session import Session
from server.storage.big import STEPS_PER_TURN, BigCollection
from server.storage.heads import ELEMENTS_OF
from server.storage.lookup import META_HEADS

FAMILY = Family("generic", "keyspace")
MEMORY = Family("server", "")

EMBEDDED_BYTES_MAX = 44  # of an embstr, as in Redis
INT_BYTES_MAX = 20  # of a 64-bit integer in decimal
SAMPLES_DEFAULT = 5  # as in Redis

_LOOKS = Keys(2, 2, 1, "RO")
_ENCODINGS = {
    (ValueType.HASH, False): b"listpack",
    (ValueType.HASH, True): b"hashtable",
    (ValueType.ZSET, False): b"listpack",
    (ValueType.ZSET, True): b"skiplist",
}

FAMILY.container("object")
MEMORY.container("memory")


@FAMILY.command("object|encoding", 3, "readonly", _LOOKS, tips="nondeterministic_output")
def encoding(session: Session, words: list[bytes], slot: int) -> bytes:
    """How a value is stored, in Redis' terms."""
    raw = session.engine.read(words[2], slot)
    if raw is None:
        return NULL[session.resp]
    if raw[0] != ValueType.STRING:
        return bulk(_ENCODINGS[ValueType(raw[0]), bool(raw[1] & Flag.BIG)])
    value = raw[body_start(raw) :]
    if len(value) > EMBEDDED_BYTES_MAX:
        return bulk(b"raw")
    return bulk(b"int" if _is_integer(value) else b"embstr")


@FAMILY.command("object|refcount", 3, "readonly", _LOOKS, tips="nondeterministic_output")
def refcount(session: Session, words: list[bytes], slot: int) -> bytes:
    """How many references a value has: always one."""
    return NULL[session.resp] if session.engine.read(words[2], slot) is None else integer_reply(1)


@FAMILY.command("object|idletime", 3, "readonly", _LOOKS, tips="nondeterministic_output")
def idletime(session: Session, words: list[bytes], slot: int) -> bytes:
    """Refused: idle times are not tracked."""
    return _untracked(session, words[2], slot, texts.IDLE_TIME_UNTRACKED)


@FAMILY.command("object|freq", 3, "readonly", _LOOKS, tips="nondeterministic_output")
def freq(session: Session, words: list[bytes], slot: int) -> bytes:
    """Refused: access frequencies are not tracked."""
    return _untracked(session, words[2], slot, texts.FREQUENCY_UNTRACKED)


@FAMILY.command("object|help", 2, "loading stale")
def object_help(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What OBJECT can do."""
    return encode([Simple(line) for line in texts.OBJECT_HELP.splitlines()], session.resp)


@MEMORY.command("memory|usage", -3, "readonly", _LOOKS)
async def usage(session: Session, words: list[bytes], slot: int) -> bytes:
    """Bytes that a key and its value take, as stored, before RocksDB compresses them."""
    samples = _samples(words[3:])
    raw = session.engine.read(words[2], slot)
    if raw is None:
        return NULL[session.resp]
    size = len(META_HEADS[slot]) + len(words[2]) + len(raw)
    if raw[1] & Flag.BIG:
        size += await _elements_bytes(session.big(words[2], slot, raw), samples)
    return integer_reply(size)


@MEMORY.command("memory|help", 2, "loading stale")
def memory_help(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What MEMORY can do."""
    return encode([Simple(line) for line in texts.MEMORY_HELP.splitlines()], session.resp)


def _untracked(session: Session, key: bytes, slot: int, text: str) -> bytes:
    if session.engine.read(key, slot) is None:
        return NULL[session.resp]
    raise ReplyError(text)


def _is_integer(value: bytes) -> bool:
    if len(value) > INT_BYTES_MAX:
        return False
    try:
        return INT64_MIN <= integer(value) <= INT64_MAX
    except ReplyError:
        return False


def _samples(options: list[bytes]) -> int:
    """How many elements to look at; 0: all."""
    samples = SAMPLES_DEFAULT
    while options:
        if options[0].lower() != b"samples" or len(options) < 2:
            raise ReplyError(texts.SYNTAX)
        samples = integer(options[1])
        if samples < 0:
            raise ReplyError(texts.SYNTAX)
        options = options[2:]
    return samples


async def _elements_bytes(big: BigCollection, samples: int) -> int:
    """What all elements take, if they are like the first ones."""
    total = 0
    with big:
        for kind in ELEMENTS_OF[big.type]:
            head_bytes, seen, size = len(big.head(kind)), 0, 0
            for detail, value in islice(big.walk(kind), samples or None):
                size += head_bytes + len(detail) + len(value)
                seen += 1
                if seen % STEPS_PER_TURN == 0:
                    await asyncio.sleep(0)
            total += size if not samples else size * big.count // max(seen, 1)
    return total
