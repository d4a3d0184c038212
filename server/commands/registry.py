"""How a command declares itself: name, arity, flags and key positions, in the terms of COMMAND's reply.

Rules:
- A family is one module's commands; table.py joins the families. Nothing registers itself globally.
- Arity counts the command's own word; negative means "at least". Key positions are (first, last, step);
  a negative last counts from the end.
- `container|name` is a subcommand. A container answers by its subcommands; one with a handler of its own (COMMAND) works without any.
- A handler gets the session, all words and the slot of the first key (NO_SLOT without keys), and returns reply bytes or raises ReplyError.
  It may return a coroutine instead: its connection waits, others go on (server/turns.py).
- A handler checks everything before it changes anything, and changes all that it changes in one turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from server.session import Session

Handler = Callable[[Session, list[bytes], int], bytes | Awaitable[bytes]]

Answer = Callable[[Session, list[bytes], bytes | None], bytes]
"""The reply of a command from the meta value of its one key (None: there is no such key), or DECLINED, if it takes more than that."""

DECLINED = b""

NO_SLOT = -1
_BLIND = "set"  # Redis' key specification says that it reads, which it does only if an option wants it
WORDS_MAX = 1 << 31  # no command has a smaller limit of its own than the parser's

# ACL categories in the order of Redis' COMMAND reply.
_CATEGORIES = (
    "keyspace",
    "read",
    "write",
    "sortedset",
    "hash",
    "string",
    "admin",
    "fast",
    "slow",
    "dangerous",
    "connection",
    "transaction",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """Where keys stand among the words; `access` and `notes` are those of COMMAND's key specification."""

    first: int = 0
    last: int = 0
    step: int = 0
    access: str = ""
    notes: str = ""
    last_access: str = ""  # if the last key is described apart, as RENAME's second one

    def of(self, words: list[bytes]) -> list[bytes]:
        """The keys of one command."""
        if not self.first:
            return []
        end = self.last + 1 if self.last >= 0 else len(words) + self.last + 1
        return words[self.first : end : self.step]


NO_KEYS = Keys()
READS_KEY = Keys(1, 1, 1, "RO access")
LOOKS_AT_KEY = Keys(1, 1, 1, "RO")


@dataclass(slots=True, eq=False)
class Command:
    """One command or subcommand. `calls` is how often it ran; all else stays as it was declared.

    `least` and `most` are its arity, `first_key` and `single_key` where its keys stand, `reads_key` whether it
    reads the value of the one key that is its first argument, `looks_at_one_key` whether that is all that it does to keys.
    `answer`, if it has one, gives what `run` would wherever it does not decline.
    """

    name: str
    run: Handler | None
    arity: int
    flags: tuple[str, ...]
    keys: Keys
    categories: tuple[str, ...]
    tips: tuple[str, ...]
    group: str
    summary: str
    admin_only: bool
    least: int
    most: int
    writes: bool
    first_key: int
    single_key: bool
    reads_key: bool
    looks_at_one_key: bool
    answer: Answer | None = None
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    calls: int = 0  # counted where it runs: that is what costs least


class Family:
    """The commands of one module."""

    def __init__(self, group: str, categories: str) -> None:
        self.commands: list[Command] = []
        self._group = group
        self._categories = frozenset(categories.split())

    def command(
        self,
        name: str,
        arity: int,
        flags: str = "",
        keys: Keys = NO_KEYS,
        *,
        categories: str = "",
        tips: str = "",
        admin_only: bool = False,
        answer: Answer | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated function as a command; its docstring is the summary of COMMAND DOCS."""

        def declare(run: Handler) -> Handler:
            self.add(name, run, arity, flags, keys, categories=categories, tips=tips, admin_only=admin_only, answer=answer)
            return run

        return declare

    def container(self, name: str, *, admin_only: bool = False) -> None:
        """Declare a command that only has subcommands."""
        self.add(name, None, -2, "", NO_KEYS, bare=True, admin_only=admin_only)

    def add(
        self,
        name: str,
        run: Handler | None,
        arity: int,
        flags: str,
        keys: Keys,
        *,
        categories: str = "",
        tips: str = "",
        admin_only: bool = False,
        bare: bool = False,
        answer: Answer | None = None,
    ) -> None:
        """Declare a command in full."""
        words = tuple(flags.split())
        self.commands.append(
            Command(
                name=name,
                run=run,
                arity=arity,
                flags=words,
                keys=keys,
                categories=_acl(words, frozenset() if bare else self._categories | frozenset(categories.split())),
                tips=tuple(tips.split()),
                group=self._group,
                summary=(run.__doc__ or "").strip() if run else "",
                admin_only=admin_only,
                least=abs(arity),
                most=arity if arity > 0 else WORDS_MAX,
                writes="write" in words,
                first_key=keys.first,
                single_key=keys.first == keys.last == 1,
                looks_at_one_key=keys.first == keys.last == 1 and "write" not in words,
                reads_key=keys.first == keys.last == 1 and keys.access.startswith(("RO", "RW")) and name != _BLIND,
                answer=answer,
            )
        )


def join(families: Iterable[Family]) -> dict[bytes, Command]:
    """All commands by lower-case name, subcommands below their containers."""
    table: dict[bytes, Command] = {}
    subcommands = []
    for family in families:
        for command in family.commands:
            if "|" in command.name:
                subcommands.append(command)
            else:
                table[command.name.encode()] = command
    for command in subcommands:
        container, _, name = command.name.partition("|")
        table[container.encode()].subcommands[name.encode()] = command
    return table


def _acl(flags: tuple[str, ...], named: frozenset[str]) -> tuple[str, ...]:
    """Redis derives some categories from flags."""
    found = set(named)
    found.add("fast" if "fast" in flags else "slow")
    if "admin" in flags:
        found |= {"admin", "dangerous"}
    if "readonly" in flags:
        found.add("read")
    if "write" in flags:
        found.add("write")
    return tuple(f"@{name}" for name in _CATEGORIES if name in found)
