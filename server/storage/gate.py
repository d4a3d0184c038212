"""Keys that a command of several turns is changing: other commands on them wait until it is done.

Most commands run within one turn of the event loop and need none of this; `busy` is empty then, which is all that anyone looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Gate:
    """The keys under way of one shard."""

    __slots__ = ("busy",)

    def __init__(self) -> None:
        self.busy: dict[bytes, asyncio.Event] = {}

    @contextmanager
    def hold(self, keys: Iterable[bytes]) -> Iterator[None]:
        """Let others wait who want one of these. Begins in the turn in which nobody held them."""
        done = asyncio.Event()
        held = set(keys)
        self.busy.update(dict.fromkeys(held, done))
        try:
            yield
        finally:
            for key in held:
                del self.busy[key]
            done.set()

    async def free(self, keys: Iterable[bytes]) -> None:
        """Returns in a turn in which nobody holds one of these."""
        wanted = tuple(keys)
        while found := next((self.busy[key] for key in wanted if key in self.busy), None):
            await found.wait()

    async def free_below(self, prefix: bytes) -> None:
        """Returns in a turn in which nobody holds a key that starts with this."""
        while found := next((held for key, held in self.busy.items() if key.startswith(prefix)), None):
            await found.wait()

    async def all_free(self) -> None:
        """Returns in a turn in which nobody holds anything."""
        while self.busy:
            await next(iter(self.busy.values())).wait()
