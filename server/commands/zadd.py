"""ZADD's arguments, and what they make of the scores that were there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.format.keys import ELEMENT_BYTES_MAX
from server.commands.arguments import double
from server.resp import texts
from server.resp.replies import ReplyError

_FLAGS = frozenset({b"nx", b"xx", b"gt", b"lt", b"ch", b"incr"})


@dataclass(frozen=True, slots=True)
class AddOptions:
    """`nx`: only new members; `xx`: only those that are there; `gt`, `lt`: those that are there only to a greater or lesser score;
    `changed`: count these too; `incr`: the score is added.
    """

    nx: bool
    xx: bool
    gt: bool
    lt: bool
    changed: bool
    incr: bool


@dataclass(frozen=True, slots=True)
class Room:
    """How many members a packed set takes further, and of how many bytes."""

    members: int
    name_bytes: int


@dataclass(slots=True)
class Outcome:
    """What becomes of it: whether the set is packed then, the scores to be written, how many members are new and how many moved, and the
    last score, None if the last member stays as it is by an option.
    """

    packed: bool
    changes: dict[bytes, float] = field(default_factory=dict)
    added: int = 0
    updated: int = 0
    score: float | None = None


def parse_add(words: list[bytes], *, incr: bool = False) -> tuple[AddOptions, list[tuple[bytes, float]]]:
    """Options, and pairs of member and score.

    Raises:
        ReplyError: options that do not go together, no pairs, or a score that is no number.
    """
    flags = {b"incr"} if incr else set()
    place = 2
    while place < len(words) and (flag := words[place].lower()) in _FLAGS:
        flags.add(flag)
        place += 1
    rest = words[place:]
    if not rest or len(rest) % 2:
        raise ReplyError(texts.SYNTAX)
    options = AddOptions(*(flag in flags for flag in (b"nx", b"xx", b"gt", b"lt", b"ch", b"incr")))
    if options.nx and options.xx:
        raise ReplyError(texts.XX_WITH_NX)
    if (options.nx and (options.gt or options.lt)) or (options.gt and options.lt):
        raise ReplyError(texts.GT_LT_WITH_NX)
    if options.incr and len(rest) > 2:
        raise ReplyError(texts.INCR_OF_MANY)
    members = rest[1::2]
    pairs = [(member, double(score)) for member, score in zip(members, rest[::2], strict=True)]
    if max(map(len, members)) > ELEMENT_BYTES_MAX:
        raise ReplyError(texts.MEMBER_TOO_LONG)
    return options, pairs


def outcome_of(options: AddOptions, pairs: list[tuple[bytes, float]], current: Mapping[bytes, float], room: Room | None) -> Outcome:
    """What the pairs, one after the other, make of the scores that their members have now; `room` is that of a packed set.

    A packed set knows no negative zero, as a listpack of Redis does not.

    Raises:
        ReplyError: a sum is no number.
    """
    made = Outcome(packed=room is not None)
    changes = made.changes
    for member, amount in pairs:
        before = changes.get(member)
        if before is None:
            before = current.get(member)
        made.score = None
        if before is None:
            if not options.xx:
                made.added += 1
                made.score = amount
                if room is None or made.added > room.members or len(member) > room.name_bytes:
                    made.packed = False
                changes[member] = amount + 0.0 if made.packed else amount
            continue
        if options.nx:
            continue
        score = before + amount if options.incr else amount
        if score != score:
            raise ReplyError(texts.SCORE_IS_NAN)
        if (options.lt and score >= before) or (options.gt and score <= before):
            continue
        made.score = score
        if score != before:
            changes[member] = score + 0.0 if made.packed else score
            made.updated += 1
    return made
