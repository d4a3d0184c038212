"""Which commands are tried: one line each, in the words of `GRAMMAR`'s rules, made into Hypothesis strategies.

::

    line    := NAME part*
    part    := atom ["?" | "*" | "+"]           once; at most once; any number; at least once
    atom    := word | "{" WORD ("|" WORD)* "}" | "(" atom ("," atom)* ")"
    word    := a name in ATOMS; WORD is said as it is, or in lower case

A command is then left as it is, or spoiled: a word dropped, added, doubled, or exchanged for another.
"""

from __future__ import annotations

import re

from hypothesis import strategies as st

Command = list[bytes]

GRAMMAR = """
SET key value
SET key value setopt*
GET key
GETEX key
GETEX key getexopt
GETDEL key
GETSET key value
SETNX key value
SETEX key ttl value
PSETEX key ttlms value
MSET (key,value)+
MSETNX (key,value)+
MGET key+
INCR key
DECR key
INCRBY key int
DECRBY key int
INCRBYFLOAT key float
APPEND key value
STRLEN key
GETRANGE key index index
SUBSTR key index index
SETRANGE key offset value
DEL key+
UNLINK key+
EXISTS key+
TOUCH key+
TYPE key
TTL key
PTTL key
EXPIRETIME key
PEXPIRETIME key
PERSIST key
EXPIRE key ttl expireopt*
PEXPIRE key ttlms expireopt*
EXPIREAT key moment expireopt*
PEXPIREAT key momentms expireopt*
RENAME key key
RENAMENX key key
OBJECT {ENCODING} key
OBJECT {REFCOUNT} key
DBSIZE
HSET key (field,value)+
HMSET key (field,value)+
HSETNX key field value
HDEL key field+
HGET key field
HMGET key field+
HGETALL key
HKEYS key
HVALS key
HLEN key
HEXISTS key field
HSTRLEN key field
HINCRBY key field int
HINCRBYFLOAT key field float
HRANDFIELD key
HRANDFIELD key count
HRANDFIELD key count {WITHVALUES}
ZADD key zaddopt* (score,member)+
ZINCRBY key score member
ZREM key member+
ZSCORE key member
ZMSCORE key member+
ZCARD key
ZCOUNT key bound bound
ZADD lexkey ({0},member)+
ZREM lexkey member+
ZLEXCOUNT lexkey lex lex
ZRANK key member
ZREVRANK key member
ZRANGE key index index {WITHSCORES|REV}*
ZRANGE key bound bound {BYSCORE} {REV|WITHSCORES}* limit?
ZRANGE lexkey lex lex {BYLEX} {REV}? limit?
ZREVRANGE key index index {WITHSCORES}?
ZRANGEBYSCORE key bound bound {WITHSCORES}? limit?
ZREVRANGEBYSCORE key bound bound {WITHSCORES}? limit?
ZRANGEBYLEX lexkey lex lex limit?
ZREVRANGEBYLEX lexkey lex lex limit?
ZREMRANGEBYRANK key index index
ZREMRANGEBYSCORE key bound bound
ZREMRANGEBYLEX lexkey lex lex
ZPOPMIN key count?
ZPOPMAX key count?
ZRANDMEMBER key
ZRANDMEMBER key count
ZRANDMEMBER key count {WITHSCORES}
MULTI
EXEC
DISCARD
WATCH key+
UNWATCH
PING
PING value
ECHO value
SELECT {0|1|x}
READONLY
COMMAND {COUNT} junk
CLUSTER {KEYSLOT} key
CLUSTER {COUNTKEYSINSLOT} {15891}
"""

LEX_KEY = b"{t}l"  # ranges by name are defined for members of one score alone, which is what this key gets
BIG = [b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"1e400", b"-1e400", b"nan", b"inf", b"-inf", b"+inf"]
ODD = [b"", b" 1", b"01", b"+1", b"1.0", b"0x10", b"1e2", b"x", b"\x00", b"-0", b"1\n"]

_texts = st.one_of(
    st.sampled_from([b"0", b"1", b"-3", b"2.5", b"a", b"b", b"", b"x\r\ny", b"\xff\x00", b"v" * 9, b"w" * 70]), st.binary(max_size=6)
)
_small = st.integers(-6, 12).map(lambda number: b"%d" % number)
_finite = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda number: repr(number).encode())
_numbers = st.one_of(_small, _small, _small, _finite, st.sampled_from(BIG + ODD))
_lex = st.one_of(
    st.sampled_from([b"-", b"+", b"[", b"("]), st.builds(lambda side, name: side + name, st.sampled_from([b"[", b"("]), _texts)
)

ATOMS: dict[str, st.SearchStrategy[Command]] = {
    name: strategy.map(lambda word: [word])
    for name, strategy in {
        "key": st.sampled_from([b"{t}a", b"{t}b", b"{t}c", b"{t}d", b"{t}e"]),
        "lexkey": st.just(LEX_KEY),
        "value": st.one_of(_texts, _numbers),
        "field": st.sampled_from([b"f1", b"f2", b"f3", b"f4", b"f5", b"f6", b"", b"long" * 9]),
        "member": st.sampled_from([b"a", b"b", b"ba", b"c", b"d", b"\xff", b"", b"long" * 9]),
        "int": _numbers,
        "float": _numbers,
        "score": _numbers,
        "index": st.one_of(_small, _small, st.sampled_from(BIG + ODD)),
        "offset": st.one_of(st.integers(0, 20).map(lambda number: b"%d" % number), st.sampled_from([b"-1", b"536870912", b"x"])),
        "count": st.one_of(_small, st.sampled_from([b"-9223372036854775808", b"9223372036854775807", b"x", b""])),
        "bound": st.one_of(_numbers, _numbers.map(lambda number: b"(" + number)),
        "lex": st.one_of(_lex, _lex, _texts),
        "ttl": st.sampled_from([b"1000", b"5000", b"100000", b"0", b"-1", b"x", b"9223372036854775807", b"9223372036854775"]),
        "ttlms": st.sampled_from(
            [b"1000000", b"5000000", b"0", b"-1", b"x", b"9223372036854775807"]
        ),  # no key expires while both are asked
        "moment": st.sampled_from([b"4000000000", b"4000000001", b"5000000000", b"1", b"0", b"-1", b"x", b"9223372036854775807"]),
        "momentms": st.sampled_from([b"4000000000000", b"4000000000001", b"5000000000000", b"1", b"-1", b"x"]),
        "junk": st.one_of(_texts, st.sampled_from([b"NX", b"WITHSCORES", b"LIMIT", b"COUNT", b"GET"])),
    }.items()
}


def _words(*texts: str) -> st.SearchStrategy[Command]:
    return st.sampled_from([text.encode().split() for text in texts])


ATOMS |= {
    "setopt": st.one_of(_words("NX", "XX", "GET", "KEEPTTL", "EX 1000", "PX 100000", "EXAT 4000000000", "PXAT 1", "EX 0", "EX", "PX x")),
    "getexopt": _words("PERSIST", "EX 1000", "PX 100000", "EXAT 4000000000", "PXAT 4000000000000", "EX 0", "EX", "EX 1 PX 1"),
    "expireopt": _words("NX", "XX", "GT", "LT", "nx", "y"),
    "zaddopt": _words("NX", "XX", "GT", "LT", "CH", "INCR", "ch"),
    "limit": st.tuples(_small, _small).map(lambda pair: [b"LIMIT", *pair]),
}

_PART = re.compile(r"(?P<group>\([^)]*\)|\{[^}]*\}|\w+)(?P<times>[?*+]?)")
_REPEATS_MAX = 4


def _atom(text: str) -> st.SearchStrategy[Command]:
    if text.startswith("("):
        return st.tuples(*map(_atom, text[1:-1].split(","))).map(lambda parts: [word for part in parts for word in part])
    if text.startswith("{"):
        literals = text[1:-1].split("|")
        return _words(*literals, *map(str.lower, literals))
    return ATOMS[text]


def _part(text: str, times: str) -> st.SearchStrategy[Command]:
    atom = _atom(text)
    if not times:
        return atom
    least, most = {"?": (0, 1), "*": (0, _REPEATS_MAX), "+": (1, _REPEATS_MAX)}[times]
    return st.lists(atom, min_size=least, max_size=most).map(lambda parts: [word for part in parts for word in part])


def _line(line: str) -> st.SearchStrategy[Command]:
    name, _, rest = line.partition(" ")
    parts = [_part(found["group"], found["times"]) for found in _PART.finditer(rest)]
    return st.tuples(*parts).map(lambda words: [name.encode(), *(word for part in words for word in part)])


@st.composite
def _spoiled(draw: st.DrawFn, whole: st.SearchStrategy[Command]) -> Command:
    words = draw(whole)
    place = draw(st.integers(1, len(words)))
    (other,) = draw(ATOMS["junk"])
    match draw(st.sampled_from(["drop", "add", "double", "exchange", "case"])):
        case "drop":
            words = words[:place] + words[place + 1 :]
        case "add":
            words = [*words[:place], other, *words[place:]]
        case "double":
            words = [*words[:place], *words[place - 1 :]] if place > 1 else [*words, *words[1:]]
        case "exchange":
            words = [*words[:place], other, *words[place + 1 :]]
        case _:
            words = [words[0].lower().title(), *words[1:]]
    return words


_LINES = [line for line in GRAMMAR.split("\n") if line]
VALID = st.one_of(list(map(_line, _LINES)))
_SPOILED = _spoiled(st.one_of([_line(line) for line in _LINES if "lexkey" not in line]))
_NO_COMMAND = st.lists(_texts, min_size=1, max_size=3).map(lambda words: [b"?" + words[0] if words[0].isalpha() else words[0], *words[1:]])
COMMANDS = st.one_of(*[VALID] * 7, *[_SPOILED] * 2, _NO_COMMAND)  # no word of Redis' own by chance: it has commands that a shard lacks
"""Seven in ten as they should be, two spoiled, one no command at all."""
