"""Commands that take several turns of the event loop are coroutines; here they are begun, and made to end.

Rules:
- A coroutine's first step runs in the turn that called the command, so what it reads first (a meta value, an iterator) is of one moment.
- Data commands yield by `asyncio.sleep(0)` alone, so that a transaction can run them to their end within one turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import coroutine
from typing import Any

Steps = Coroutine[Any, Any, bytes]


def begun(steps: Steps) -> bytes | Awaitable[bytes]:
    """The result, if the first step gave it; otherwise what is still to come."""
    try:
        yielded = steps.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a coroutine's value has no type here
    return _resumed(steps, yielded)


def ended(steps: Steps) -> bytes:
    """Run all steps now.

    Raises:
        RuntimeError: a step waits for something.
    """
    while True:
        try:
            yielded = steps.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # as above
        if yielded is not None:
            steps.close()
            raise RuntimeError(f"a command within a transaction waits for {yielded!r}")


@coroutine
def _resumed(steps: Steps, yielded: Any) -> Generator[Any, Any, bytes]:
    """Hand on what the first step yielded, then go on as if awaited from the beginning."""
    try:
        yield yielded
    except BaseException:
        steps.close()  # a cancellation meant the steps
        raise
    reply: bytes = yield from steps  # a coroutine that was begun goes on where it stood
    return reply
